// SPDX-License-Identifier: GPL-2.0-or-later
//
// The plugin's entry. QEMU loads a plugin after the machine was chosen and before any device is
// made: the right moment to add a device type and to let the machine accept it.
#include "plugin/qemu/compat.h"

#include "hw/boards.h"
#include "plugin/module/device_option.h"
#include "plugin/module/host_check.h"
#include "plugin/probe/probe.h"
#include "plugin/qemu/viommu.h"
#include "plugin/qemu/viommu_name.h"
#include "qapi/error.h"
#include "qemu/error-report.h"

/* QEMU refuses a plugin with a higher number than its own before the plugin can say why. The
 * functions used here exist since the lowest, and umbra_host_check() looks at the real one. */
QEMU_PLUGIN_EXPORT int qemu_plugin_version = 2;

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t* info, int argc,
                                           char** argv) {
    UmbraPluginOptions options;
    Error* error = NULL;
    bool ok = true;

    if (!umbra_host_check(info)) {
        return -EINVAL;
    }
    if (!umbra_plugin_options_parse(argc, argv, &options, &error)) {
        error_reportf_err(error, "umbra: ");
        return -EINVAL;
    }
    if (object_class_by_name(TYPE_UMBRA_VIOMMU) != NULL) {
        error_report("umbra: the plugin is loaded already; give -plugin once");
        return -EEXIST;
    }
    umbra_viommu_register_types();
    umbra_probe_register_types();
    if (options.help) {
        umbra_viommu_print_help(stdout);
        exit(EXIT_SUCCESS);
    }
    /* On every machine: if it is no q35, the device says that it needs one. */
    machine_class_allow_dynamic_sysbus_dev(MACHINE_GET_CLASS(current_machine), TYPE_UMBRA_VIOMMU);
    if (options.device && !umbra_plugin_options_add_device(&options, &error)) {
        error_reportf_err(error, "umbra: ");
        ok = false;
    }
    umbra_plugin_options_clear(&options);
    return ok ? 0 : -EINVAL;
}
