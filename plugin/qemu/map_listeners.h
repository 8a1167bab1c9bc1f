// SPDX-License-Identifier: GPL-2.0-or-later
//
// Devices that can only work if they are told what the guest maps: those whose DMA does not come
// through QEMU. Without caching mode the guest does not say, and they have to be refused before it
// runs: when translation goes on it is too late, and QEMU's VFIO code then ends the process.
#ifndef UMBRA_QEMU_MAP_LISTENERS_H
#define UMBRA_QEMU_MAP_LISTENERS_H

#include "plugin/qemu/compat.h"

#include "qobject/qdict.h"

/* What a -device option or device_add asks for. False with an error if it is such a device. */
bool umbra_check_options_without_caching_mode(const QDict* options, Error** errp);

/* The same for all devices that there are. */
bool umbra_check_devices_without_caching_mode(Error** errp);

#endif
