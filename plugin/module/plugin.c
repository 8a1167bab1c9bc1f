// SPDX-License-Identifier: GPL-2.0-or-later
//
// The plugin's entry. QEMU loads a plugin after the machine was chosen and before any device is
// made: the right moment to add a device type and to let the machine accept it.
#include "plugin/qemu/compat.h"

#include "hw/boards.h"
#include "plugin/module/host_check.h"
#include "plugin/probe/probe.h"
#include "plugin/qemu/viommu.h"
#include "plugin/qemu/viommu_name.h"
#include "qemu/error-report.h"

/* QEMU refuses a plugin with a higher number than its own before the plugin can say why. The
 * functions used here exist since the lowest, and umbra_host_check() looks at the real one. */
QEMU_PLUGIN_EXPORT int qemu_plugin_version = 2;

/* Options are name=value; the plugin has only help. */
static bool parse_arguments(int argc, char** argv, bool* help) {
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "help=on") == 0) {
            *help = true;
        } else if (strcmp(argv[i], "help=off") != 0) {
            error_report(
                "umbra: unknown plugin option '%s'; the plugin has only help=on, settings belong to -device " TYPE_UMBRA_VIOMMU,
                argv[i]);
            return false;
        }
    }
    return true;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t* info, int argc,
                                           char** argv) {
    bool help = false;

    if (!umbra_host_check(info) || !parse_arguments(argc, argv, &help)) {
        return -EINVAL;
    }
    if (object_class_by_name(TYPE_UMBRA_VIOMMU) != NULL) {
        error_report("umbra: the plugin is loaded already; give -plugin once");
        return -EEXIST;
    }
    umbra_viommu_register_types();
    umbra_probe_register_types();
    if (help) {
        umbra_viommu_print_help(stdout);
        exit(EXIT_SUCCESS);
    }
    /* On every machine: if it is no q35, the device says that it needs one. */
    machine_class_allow_dynamic_sysbus_dev(MACHINE_GET_CLASS(current_machine), TYPE_UMBRA_VIOMMU);
    return 0;
}
