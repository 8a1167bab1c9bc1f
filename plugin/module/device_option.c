// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/module/device_option.h"

#include "plugin/qemu/properties.h"
#include "plugin/qemu/viommu_name.h"
#include "qapi/error.h"
#include "qapi/util.h"
#include "qemu/config-file.h"
#include "qemu/option.h"
#include "qemu/option_int.h"

/* QEMU takes id= of -plugin for itself. */
#define UNIT_ID "umbra"

/* The value of `option`, which is name=value, if its name is `name`; else NULL. */
static const char* value_of(const char* option, const char* name) {
    const size_t length = strlen(name);

    return strncmp(option, name, length) == 0 && option[length] == '=' ? option + length + 1 : NULL;
}

static bool is_property(const char* option) {
    const char* equals = strchr(option, '=');
    g_autofree char* name =
        equals != NULL ? g_strndup(option, (gsize)(equals - option)) : g_strdup(option);

    return equals != NULL && umbra_properties_have(name);
}

static bool parse_one(const char* option, UmbraPluginOptions* options, Error** errp) {
    const char* help = value_of(option, "help");
    const char* device = value_of(option, "device");

    if (help != NULL) {
        return qapi_bool_parse("help", help, &options->help, errp);
    }
    if (device != NULL) {
        return qapi_bool_parse("device", device, &options->device, errp);
    }
    if (!is_property(option)) {
        g_autofree char* names = umbra_properties_names();

        error_setg(
            errp,
            "unknown plugin option '%s'; there are help=on, device=on and, with device=on, the properties of " TYPE_UMBRA_VIOMMU
            ": %s",
            option, names);
        return false;
    }
    return true;
}

bool umbra_plugin_options_parse(int argc, char** argv, UmbraPluginOptions* options, Error** errp) {
    g_autoptr(GPtrArray) properties = g_ptr_array_new_with_free_func(g_free);

    *options = (UmbraPluginOptions){0};
    for (int i = 0; i < argc; i++) {
        if (!parse_one(argv[i], options, errp)) {
            return false;
        }
        if (is_property(argv[i])) {
            g_ptr_array_add(properties, g_strdup(argv[i]));
        }
    }
    if (properties->len > 0 && !options->device) {
        error_setg(
            errp,
            "plugin option '%s' is a property of " TYPE_UMBRA_VIOMMU
            ": give device=on as well, and the plugin makes that device, or give the property to -device " TYPE_UMBRA_VIOMMU,
            (const char*)g_ptr_array_index(properties, 0));
        return false;
    }
    g_ptr_array_add(properties, NULL);
    options->properties = (char**)g_ptr_array_free(g_steal_pointer(&properties), FALSE);
    return true;
}

void umbra_plugin_options_clear(UmbraPluginOptions* options) {
    g_clear_pointer(&options->properties, g_strfreev);
}

static int names_the_unit(void* unused, QemuOpts* device, Error** errp) {
    return g_strcmp0(qemu_opt_get(device, "driver"), TYPE_UMBRA_VIOMMU) == 0 ? 1 : 0;
}

bool umbra_plugin_options_add_device(const UmbraPluginOptions* options, Error** errp) {
    QemuOptsList* devices = qemu_find_opts("device");
    QemuOpts* unit;

    if (qemu_opts_foreach(devices, names_the_unit, NULL, NULL) != 0) {
        error_setg(errp, "device=on of the plugin makes the unit: leave -device " TYPE_UMBRA_VIOMMU
                         " out, or device=on");
        return false;
    }
    unit = qemu_opts_create(devices, UNIT_ID, 1, errp);
    if (unit == NULL) {
        return false;
    }
    QTAILQ_REMOVE(&devices->head, unit, next);
    QTAILQ_INSERT_HEAD(&devices->head, unit, next);
    qemu_opt_set(unit, "driver", TYPE_UMBRA_VIOMMU, &error_abort);
    for (char** property = options->properties; *property != NULL; property++) {
        const char* equals = strchr(*property, '=');
        g_autofree char* name = g_strndup(*property, (gsize)(equals - *property));

        qemu_opt_set(unit, name, equals + 1, &error_abort);
    }
    return true;
}
