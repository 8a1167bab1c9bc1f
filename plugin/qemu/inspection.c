// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/inspection.h"

#include "plugin/bridge/statistics.h"
#include "plugin/qemu/viommu_state.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qobject/qjson.h"
#include "qobject/qobject.h"

/* Frees `json`. */
static void visit_json(Visitor* visitor, const char* name, char* json, Error** errp) {
    QObject* object = qobject_from_json(json, &error_abort);

    umbra_string_free(json);
    visit_type_any(visitor, name, &object, errp);
    qobject_unref(object);
}

static bool is_realized(const UmbraViommu* self, Error** errp) {
    if (self->unit == NULL) {
        error_setg(errp, "the device is not realized");
    }
    return self->unit != NULL;
}

static void get_statistics(Object* object, Visitor* visitor, const char* name, void* opaque,
                           Error** errp) {
    UmbraViommu* self = UMBRA_VIOMMU(object);
    const UmbraSnapshotStamp stamp = {.unit = umbra_viommu_name(self),
                                      .dropped = self->stats.dropped};

    if (is_realized(self, errp)) {
        visit_json(visitor, name, umbra_unit_statistics(self->unit, &stamp), errp);
    }
}

static void get_verify(Object* object, Visitor* visitor, const char* name, void* opaque,
                       Error** errp) {
    UmbraViommu* self = UMBRA_VIOMMU(object);

    if (is_realized(self, errp)) {
        visit_json(visitor, name, umbra_unit_verify(self->unit), errp);
    }
}

static void set_statistics_clear(Object* object, bool value, Error** errp) {
    UmbraViommu* self = UMBRA_VIOMMU(object);

    if (value && self->unit != NULL) {
        umbra_unit_clear_statistics(self->unit);
    }
}

static void set_stats_write(Object* object, bool value, Error** errp) {
    UmbraViommu* self = UMBRA_VIOMMU(object);

    if (is_realized(self, errp) && value) {
        umbra_stats_output_write_file(&self->stats, errp);
    }
}

void umbra_inspection_add(ObjectClass* klass) {
    object_class_property_add(klass, "statistics", "struct", get_statistics, NULL, NULL, NULL);
    object_class_property_set_description(
        klass, "statistics", "Invalidations, faults and IOTLB use since the last clear");
    object_class_property_add(klass, "verify", "struct", get_verify, NULL, NULL, NULL);
    object_class_property_set_description(
        klass, "verify",
        "The guest's tables compared with the host's mappings, and each difference");
    object_class_property_add_bool(klass, "statistics-clear", NULL, set_statistics_clear);
    object_class_property_set_description(klass, "statistics-clear",
                                          "Writing true sets all statistics to 0");
    object_class_property_add_bool(klass, "stats-write", NULL, set_stats_write);
    object_class_property_set_description(klass, "stats-write",
                                          "Writing true writes the statistics to stats-file");
}

void umbra_inspection_print_help(FILE* out) {
    fputs(
        "  qom-get /machine/peripheral/ID statistics        counters, as one object\n"
        "  qom-set /machine/peripheral/ID statistics-clear  true sets them to 0\n"
        "  qom-set /machine/peripheral/ID stats-write       true writes them to stats-file\n"
        "  qom-get /machine/peripheral/ID verify            guest tables compared with host mappings\n",
        out);
}
