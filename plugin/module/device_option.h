// SPDX-License-Identifier: GPL-2.0-or-later
//
// The options behind -plugin file=umbra.so. With device=on the plugin makes the unit itself: it
// puts a -device option of its own before all others. So it does not matter in which order the
// command line names the devices, which tools that write command lines often decide by themselves.
#ifndef UMBRA_MODULE_DEVICE_OPTION_H
#define UMBRA_MODULE_DEVICE_OPTION_H

#include "plugin/qemu/compat.h"

typedef struct UmbraPluginOptions {
    bool help;
    bool device;
    char** properties; /* name=value; NULL at the end. Owned. */
} UmbraPluginOptions;

/* False, with an error, if an option is unknown, or is a property of the unit without device=on.
 * The types of umbra_viommu_register_types() need not be registered. */
bool umbra_plugin_options_parse(int argc, char** argv, UmbraPluginOptions* options, Error** errp);
void umbra_plugin_options_clear(UmbraPluginOptions* options);

/* Puts the unit before all devices of the command line, with the options' properties and the id
 * "umbra". False, with an error, if -device names a unit as well or the id is taken. Only while
 * QEMU has made no device of its command line. */
bool umbra_plugin_options_add_device(const UmbraPluginOptions* options, Error** errp);

#endif
