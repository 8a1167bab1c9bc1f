// SPDX-License-Identifier: GPL-2.0-or-later
//
// The way of the shadow's mappings to VFIO. Maps and unmaps go straight to the device's container
// (type1 or iommufd), any range in one call, and errors come back.
//
// The shadow switches the view of a space with containers, between its last unmap and its first
// map, because QEMU's own VFIO listener fills the same container while the view is identity.
// Devices behind a bridge that share a requester id share the space. Their containers may be one or
// several; each is a device of its own to the shadow.
//
// Functions need the big lock.
#ifndef UMBRA_QEMU_VFIO_CONTAINER_H
#define UMBRA_QEMU_VFIO_CONTAINER_H

#include "plugin/qemu/compat.h"

#include "hw/pci/pci_device.h"
#include "plugin/qemu/device_space.h"
#include "system/host_iommu_device.h"

/* `device`, which is in `space`, is `host_device`, whose container the shadow fills from here on.
 * False with an error if that cannot be: the device is not VFIO's, or the host's addresses are
 * narrower than the unit's. */
bool umbra_vfio_container_attach(UmbraDeviceSpace* space, const PCIDevice* device,
                                 HostIOMMUDevice* host_device, Error** errp);
/* Empties the container if no other device uses it. Does nothing for a device that is not attached.
 */
void umbra_vfio_container_detach(UmbraDeviceSpace* space, const PCIDevice* device);
void umbra_vfio_container_detach_all(UmbraDeviceSpace* space);

/* Whether `notifier` is one that QEMU's VFIO code registered for a container of the space. */
bool umbra_vfio_container_owns(const UmbraDeviceSpace* space, const IOMMUNotifier* notifier);

#endif
