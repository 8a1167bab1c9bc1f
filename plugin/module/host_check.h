// SPDX-License-Identifier: GPL-2.0-or-later
//
// Is this the QEMU that the plugin was built for?
//
// The plugin uses QEMU's own functions and structures, which are no stable interface. So before it
// does anything, it checks that each function it needs is there, and that the version is that of
// the headers it was compiled with (but for the last number: stable updates keep structures). To be
// able to say so, it must be loadable into a QEMU where functions are missing: its references to
// QEMU are weak (CMakeLists.txt), and missing ones are null.
#ifndef UMBRA_MODULE_HOST_CHECK_H
#define UMBRA_MODULE_HOST_CHECK_H

#include "plugin/qemu/compat.h"

#include "qemu/qemu-plugin.h"

/* Says on stderr what is wrong and how to get a QEMU that works, if it returns false. */
bool umbra_host_check(const qemu_info_t* info);

#endif
