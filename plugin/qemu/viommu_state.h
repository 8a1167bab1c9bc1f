// SPDX-License-Identifier: GPL-2.0-or-later
//
// The state of the QOM device "umbra-viommu", for the files that make up its class: viommu.c and
// inspection.c.
#ifndef UMBRA_QEMU_VIOMMU_STATE_H
#define UMBRA_QEMU_VIOMMU_STATE_H

#include "plugin/qemu/compat.h"

#include "hw/i386/x86-iommu.h"
#include "plugin/bridge/unit.h"
#include "plugin/qemu/platform.h"
#include "plugin/qemu/properties.h"
#include "plugin/qemu/ram_listener.h"
#include "plugin/qemu/stats_output.h"
#include "plugin/qemu/topology.h"
#include "plugin/qemu/viommu_name.h"

OBJECT_DECLARE_TYPE(UmbraViommu, UmbraViommuClass, UMBRA_VIOMMU)

struct UmbraViommuClass {
    X86IOMMUClass parent;
    DeviceRealize parent_realize;
};

struct UmbraViommu {
    X86IOMMUState parent;

    UmbraProperties properties;
    UmbraUnit* unit; /* NULL until the device is realized */
    MemoryRegion registers;
    UmbraRamListener ram;
    UmbraTopology topology;
    UmbraQemuPlatform platform;
    UmbraStatsOutput stats;
    QEMUTimer* work;
    QEMUTimer* retry;      /* of what the host refused */
    UmbraSavedState saved; /* only while state is saved or loaded */
};

/* The operator chose another on-map-error, perhaps before the device is realized. */
void umbra_viommu_map_error_choice_changed(UmbraViommu* self);

/* The operator's name for the unit. */
static inline const char* umbra_viommu_name(const UmbraViommu* self) {
    const char* id = DEVICE(self)->id;

    return id != NULL ? id : TYPE_UMBRA_VIOMMU;
}

#endif
