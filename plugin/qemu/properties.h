// SPDX-License-Identifier: GPL-2.0-or-later
//
// The operator's choices for a unit: the properties of -device umbra-viommu. One table
// (properties.c) holds name, place, default, values and help of each; help texts and QMP follow
// from it. `intremap`, `pt` and `device-iotlb` are x86-iommu's own:
// the table gives them words, x86-iommu the rest.
//
// Functions need the big lock.
#ifndef UMBRA_QEMU_PROPERTIES_H
#define UMBRA_QEMU_PROPERTIES_H

#include "plugin/qemu/compat.h"

#include "hw/i386/x86-iommu.h"
#include "plugin/bridge/unit.h"
#include "plugin/qemu/stats_output.h"

/* Where QEMU stores the values. x86-iommu's are in X86IOMMUState. */
typedef struct UmbraProperties {
    bool caching_mode;
    bool snoop_control;
    bool dma_translation;  /* unused where x86-iommu has the property itself */
    uint8_t address_width; /* 0: auto, what all hosts present allow when the machine starts */
    OnOffAuto extended_interrupt_mode;
    bool coalesce;
    bool stop_on_map_error;
    uint64_t max_mappings;
    uint32_t max_tables;
    uint32_t slice_us;
    UmbraStatsProperties stats;
} UmbraProperties;

/* Gives a class the properties; its instances have a UmbraProperties at `offset`. To be called
 * once, for a descendant of x86-iommu. */
void umbra_properties_add(ObjectClass* klass, size_t offset);

/* Whether the unit has a property of that name that is for users. */
bool umbra_properties_have(const char* name);
/* The names of all of them, with commas between. The caller frees the text. */
char* umbra_properties_names(void);
/* Prints each property of `klass` with its values, its default and its help. */
void umbra_properties_print_help(ObjectClass* klass, FILE* out);

/* The unit and the shadow that the values make on this machine. False with an error if a value is
 * out of range, or asks for a feature that the machine does not have. */
bool umbra_properties_of_unit(const UmbraProperties* properties, X86IOMMUState* iommu,
                              UmbraUnitProperties* unit, Error** errp);
bool umbra_properties_of_shadow(const UmbraProperties* properties, UmbraShadowOptions* shadow,
                                Error** errp);

#endif
