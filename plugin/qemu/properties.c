// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/properties.h"

#include "hw/qdev-properties.h"
#include "plugin/qemu/machine.h"
#include "plugin/qemu/viommu_state.h"
#include "qapi/error.h"
#include "qapi/visitor-impl.h"
#include "qapi/visitor.h"
#include "qemu/cutils.h"
#include "qobject/qbool.h"
#include "qobject/qnum.h"
#include "qobject/qstring.h"

#define ON_MAP_ERROR_REPORT "report"
#define ON_MAP_ERROR_STOP "stop"

/* ---- on-map-error, which can be set while the machine runs ---- */

static void get_on_map_error(Object* object, Visitor* visitor, const char* name, void* opaque,
                             Error** errp) {
    const bool* stop = object_field_prop_ptr(object, opaque);
    g_autofree char* text = g_strdup(*stop ? ON_MAP_ERROR_STOP : ON_MAP_ERROR_REPORT);

    visit_type_str(visitor, name, &text, errp);
}

static void set_on_map_error(Object* object, Visitor* visitor, const char* name, void* opaque,
                             Error** errp) {
    bool* stop = object_field_prop_ptr(object, opaque);
    g_autofree char* text = NULL;

    if (!visit_type_str(visitor, name, &text, errp)) {
        return;
    }
    if (!g_str_equal(text, ON_MAP_ERROR_STOP) && !g_str_equal(text, ON_MAP_ERROR_REPORT)) {
        error_setg(errp, "on-map-error=%s: use report or stop", text);
        return;
    }
    *stop = g_str_equal(text, ON_MAP_ERROR_STOP);
    umbra_viommu_map_error_choice_changed(UMBRA_VIOMMU(object));
}

static void set_default_on_map_error(ObjectProperty* property, const Property* row) {
    object_property_set_default_str(property, ON_MAP_ERROR_REPORT);
}

static const PropertyInfo on_map_error_info = {
    .type = "str",
    .realized_set_allowed = true,
    .get = get_on_map_error,
    .set = set_on_map_error,
    .set_default_value = set_default_on_map_error,
};

/* ---- The table ---- */

typedef struct PropertyRow {
    Property property;  /* name, place in UmbraProperties, default; of x86-iommu's only the name */
    const char* values; /* the values that it takes, for people */
    const char* unset;  /* of a string: the default, for people; NULL for all others */
    const char* help;
} PropertyRow;

#define ADDRESS_WIDTH_AUTO "auto"

/* A number, or "auto". */
static void get_address_width(Object* object, Visitor* visitor, const char* name, void* opaque,
                              Error** errp) {
    uint8_t width = *(uint8_t*)object_field_prop_ptr(object, opaque);
    char text[] = ADDRESS_WIDTH_AUTO;
    char* words = text;

    if (width == 0) {
        visit_type_str(visitor, name, &words, errp);
    } else {
        visit_type_uint8(visitor, name, &width, errp);
    }
}

/* Whether the value is a number of JSON. A visitor takes one look at the value, so its type has to
 * be known before; visitors of words cannot tell types apart. */
static bool is_json_number(Visitor* visitor, const char* name) {
    GenericAlternate* value = NULL;
    bool number = false;

    if (visitor->start_alternate != NULL &&
        visit_start_alternate(visitor, name, &value, sizeof(*value), NULL)) {
        number = value->type == QTYPE_QNUM;
        visit_end_alternate(visitor, (void**)&value);
        g_free(value);
    }
    return number;
}

static void set_address_width(Object* object, Visitor* visitor, const char* name, void* opaque,
                              Error** errp) {
    uint8_t* width = object_field_prop_ptr(object, opaque);
    g_autofree char* words = NULL;
    unsigned number = 0;

    if (is_json_number(visitor, name)) {
        uint8_t value;

        if (!visit_type_uint8(visitor, name, &value, errp)) {
            return;
        }
        number = value;
        words = g_strdup_printf("%u", number);
    } else if (!visit_type_str(visitor, name, &words, errp)) {
        return;
    } else if (g_str_equal(words, ADDRESS_WIDTH_AUTO)) {
        *width = 0;
        return;
    } else if (qemu_strtoui(words, NULL, 10, &number) != 0) {
        number = 0;
    }
    if (number != 39 && number != 48) {
        error_setg(errp, "%s=%s is not supported: use 39, 48 or " ADDRESS_WIDTH_AUTO, name, words);
        return;
    }
    *width = (uint8_t)number;
}

static void set_default_address_width(ObjectProperty* property, const Property* unused) {
    object_property_set_default_str(property, ADDRESS_WIDTH_AUTO);
}

static const PropertyInfo address_width_info = {
    .type = "39|48|" ADDRESS_WIDTH_AUTO,
    .get = get_address_width,
    .set = set_address_width,
    .set_default_value = set_default_address_width,
};

#define DEFINE_PROP_ADDRESS_WIDTH(name, state, field) \
    DEFINE_PROP(name, state, field, address_width_info, uint8_t, .set_default = true)

#define OWN(type, name, field, ...) \
    .property = DEFINE_PROP_##type(name, UmbraProperties, field __VA_OPT__(, ) __VA_ARGS__)
#define INHERITED(name_) .property = {.name = (name_)}

// clang-format off: a sentence stays in one piece
static const PropertyRow rows[] = {
    {OWN(BOOL, "caching-mode", caching_mode, true), "on|off", NULL,
     "The guest must invalidate after every change of its tables (CAP.CM); pass-through needs this"},
    {OWN(ADDRESS_WIDTH, "aw-bits", address_width), "39|48|auto", NULL,
     "Width of I/O virtual addresses: with 39 tables have three levels, with 48 three or four; auto is 48 unless a host of a passed-through device is narrower when the machine starts"},
#if UMBRA_INHERITS_DMA_TRANSLATION
    {INHERITED("dma-translation"),
#else
    {OWN(BOOL, "dma-translation", dma_translation, true),
#endif
     "on|off", NULL, "Offer DMA translation; off leaves interrupt remapping alone"},
    {INHERITED("intremap"), "on|off|auto", NULL,
     "Remap interrupts; auto is on unless KVM has the whole interrupt controller (kernel-irqchip=on)"},
    {OWN(ON_OFF_AUTO, "eim", extended_interrupt_mode, ON_OFF_AUTO_AUTO), "on|off|auto", NULL,
     "32-bit APIC ids in remapped interrupts (x2APIC); auto is on if intremap and the accelerator allow it"},
    {INHERITED("pt"), "on|off", NULL,
     "The guest may let a device's DMA pass untranslated (ECAP.PT), as with iommu=pt"},
    {INHERITED("device-iotlb"), "on|off", NULL,
     "Devices may have translation caches of their own (ATS); without it, virtio devices with iommu_platform=on,ats=on are refused"},
    {OWN(BOOL, "snoop-control", snoop_control, false), "on|off", NULL,
     "The guest may set the snoop bit in its tables (ECAP.SC)"},
    {OWN(BOOL, "coalesce", coalesce, true), "on|off", NULL,
     "Join contiguous pages that one page-selective invalidation names into one host mapping; a later unmap of a part splits the mapping"},
    {.property = DEFINE_PROP("on-map-error", UmbraProperties, stop_on_map_error, on_map_error_info,
                             bool, .set_default = true),
     ON_MAP_ERROR_REPORT "|" ON_MAP_ERROR_STOP,
     NULL,
     "When the host refuses a mapping: report tells the operator and retries; stop also stops the machine until the mapping is there (the monitor's cont retries). qom-set changes it at run time: report lets a stopped machine go on with cont"},
    {OWN(UINT64, "max-mappings", max_mappings, UMBRA_DEFAULT_MAX_MAPPINGS), "NUMBER", NULL,
     "Budget against hostile tables: leaf entries of one guest domain"},
    {OWN(UINT32, "max-tables", max_tables, UMBRA_DEFAULT_MAX_TABLES), "NUMBER", NULL,
     "Budget against hostile tables: table pages of one guest domain; all domains together may have twice as many"},
    {OWN(UINT32, "slice-us", slice_us, 10000), "MICROSECONDS", NULL,
     "Longest work on invalidations at a time; then the machine goes on, and the guest waits for the rest. 0: no limit"},
    {OWN(STRING, "stats-file", stats.file), "PATH", "none",
     "Write the counters to this file when QEMU exits, for umbra-stat; stats-write does so at once"},
    {OWN(STRING, "stats-chardev", stats.chardev), "ID", "none",
     "Send the counters at an interval to the reader of this -chardev, for umbra-stat"},
    {OWN(UINT32, "stats-interval", stats.interval, 1000), "NUMBER", NULL,
     "Milliseconds between two messages over stats-chardev"},
};
// clang-format on

void umbra_properties_add(ObjectClass* klass, size_t offset) {
    /* QEMU keeps the array. */
    static Property own[ARRAY_SIZE(rows)];
    size_t count = 0;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        if (rows[i].property.info != NULL) {
            own[count] = rows[i].property;
            own[count++].offset += (ptrdiff_t)offset;
        }
    }
    device_class_set_props_n(DEVICE_CLASS(klass), own, count);

    /* Written into the property as found: x86-iommu has no words for its own. */
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        ObjectProperty* property = object_class_property_find(klass, rows[i].property.name);

        g_free(property->description);
        property->description = g_strdup(rows[i].help);
    }
}

/* The default, as one writes it on the command line. */
static char* default_of(ObjectClass* klass, const PropertyRow* row) {
    const QObject* value = object_class_property_find(klass, row->property.name)->defval;

    if (row->unset != NULL) {
        return g_strdup(row->unset);
    }
    if (qobject_to(QBool, value) != NULL) {
        return g_strdup(qbool_get_bool(qobject_to(QBool, value)) ? "on" : "off");
    }
    if (qobject_to(QNum, value) != NULL) {
        return qnum_to_string(qobject_to(QNum, value));
    }
    return g_strdup(qstring_get_str(qobject_to(QString, value)));
}

bool umbra_properties_have(const char* name) {
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        if (strcmp(rows[i].property.name, name) == 0) {
            return true;
        }
    }
    return false;
}

char* umbra_properties_names(void) {
    GString* names = g_string_new(NULL);

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        g_string_append_printf(names, "%s%s", i > 0 ? ", " : "", rows[i].property.name);
    }
    return g_string_free(names, FALSE);
}

void umbra_properties_print_help(ObjectClass* klass, FILE* out) {
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const PropertyRow* row = &rows[i];
        g_autofree char* default_value = default_of(klass, row);

        fprintf(out, "  %-14s %-12s (default: %s)\n      %s\n", row->property.name, row->values,
                default_value, row->help);
    }
}

static UmbraChoice choice_of(OnOffAuto value) {
    return value == ON_OFF_AUTO_ON    ? UMBRA_CHOICE_ON
           : value == ON_OFF_AUTO_OFF ? UMBRA_CHOICE_OFF
                                      : UMBRA_CHOICE_AUTO;
}

bool umbra_properties_of_unit(const UmbraProperties* properties, X86IOMMUState* iommu,
                              UmbraUnitProperties* unit, Error** errp) {
    const char* problem;

    *unit = (UmbraUnitProperties){
        .caching_mode = properties->caching_mode,
        .address_width = properties->address_width != 0 ? properties->address_width
                                                        : UMBRA_DEFAULT_ADDRESS_WIDTH,
        .host_address_width = umbra_machine_address_width(),
        .dma_translation = umbra_dma_translation_wanted(iommu, properties->dma_translation),
        .interrupt_remapping = x86_iommu_ir_supported(iommu),
        .pass_through = iommu->pt_supported,
        .device_iotlb = iommu->dt_supported,
        .snoop_control = properties->snoop_control,
    };
    problem = umbra_decide_extended_interrupt_mode(
        choice_of(properties->extended_interrupt_mode), unit->interrupt_remapping,
        umbra_machine_switch_on_wide_interrupts, &unit->extended_interrupt_mode);
    if (problem == NULL) {
        problem = umbra_unit_properties_error(unit);
    }
    if (problem != NULL) {
        error_setg(errp, "%s", problem);
        return false;
    }
    return true;
}

bool umbra_properties_of_shadow(const UmbraProperties* properties, UmbraShadowOptions* shadow,
                                Error** errp) {
    if (properties->max_mappings == 0 || properties->max_tables == 0) {
        error_setg(errp, "max-mappings and max-tables must be at least 1");
        return false;
    }
    *shadow = (UmbraShadowOptions){
        .coalesce = properties->coalesce,
        .stop_on_map_error = properties->stop_on_map_error,
        .max_mappings = properties->max_mappings,
        .max_tables = properties->max_tables,
        .slice_us = properties->slice_us,
    };
    return true;
}
