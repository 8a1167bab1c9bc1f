// SPDX-License-Identifier: GPL-2.0-or-later
//
// Is this the QEMU that the plugin was built for?
//
// The plugin uses QEMU's own functions and structures, which are no stable interface. So before it
// does anything else, it checks two things: each function that it needs is there, and the version
// is that of the headers with which the plugin was compiled. (The last number may differ: stable
// updates keep structures.) A QEMU that lacks functions must still load the plugin, or the plugin
// could not say what is wrong. So references to QEMU are weak (CMakeLists.txt), and missing
// functions are null.
#ifndef UMBRA_MODULE_HOST_CHECK_H
#define UMBRA_MODULE_HOST_CHECK_H

#include "plugin/qemu/compat.h"

#include "qemu/qemu-plugin.h"

/* If it returns false, it has said on stderr what is wrong and how to get a QEMU that works. */
bool umbra_host_check(const qemu_info_t* info);

#endif
