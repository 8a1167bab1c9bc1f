// SPDX-License-Identifier: GPL-2.0-or-later
//
// Devices that the unit, with the properties that it has, cannot serve. They have to be refused
// before the guest runs. A guest that switches translation or a device's TLB on comes too late:
// QEMU's VFIO and vhost code then ends the process.
//
//   needs                                        because
//   maps: vfio-pci and others whose DMA does     caching-mode=off: the guest does not say what it
//     not come through QEMU                        maps
//   a TLB of its own: virtio with ats=on         device-iotlb=off: the unit does not offer it
#ifndef UMBRA_QEMU_DEVICE_REFUSAL_H
#define UMBRA_QEMU_DEVICE_REFUSAL_H

#include "plugin/qemu/compat.h"

#include "plugin/bridge/unit.h"

/* From here on refuses each such device that the command line or the monitor asks for, and ends
 * QEMU with a message if there is one once the machine is complete. Once, with the big lock. */
void umbra_device_refusal_start(const UmbraUnitProperties* properties);

#endif
