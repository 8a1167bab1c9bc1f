// SPDX-License-Identifier: GPL-2.0-or-later
//
// How what the shadow maps for a device reaches the host. There are two ways:
//
//   container   A VFIO device. Maps and unmaps go straight to its container (type1 or iommufd), any
//               range in one call, and errors come back. The device's view is switched by the
//               shadow, between its last unmap and its first map, because QEMU's own VFIO listener
//               fills the same container while the view is identity. Devices behind a bridge
//               that share a requester id share the space; their containers may be one or several,
//               and each is a device of its own to the shadow.
//   notifiers   Any other listener for mappings (IOMMU_NOTIFIER_MAP): vhost-vdpa, a mediated
//               device, a probe. Naturally aligned powers of two, one call each, and nothing comes
//               back. A listener exists only while the view is translated, so the platform switches
//               it.
//
// A VFIO device is attached by notifiers for the moment between its listener's registration and
// set_iommu_device, when it turns out to be one. Behind a bridge both ways may be in use at once:
// then the notifiers of containers are left out.
#ifndef UMBRA_QEMU_SHADOW_PORT_H
#define UMBRA_QEMU_SHADOW_PORT_H

#include "hw/pci/pci_device.h"
#include "plugin/qemu/compat.h"
#include "plugin/qemu/device_space.h"
#include "system/host_iommu_device.h"

/* `device`, which is in `space`, is `host_device`, whose container the shadow fills from here on.
 * False with an error if that cannot be: no VFIO device, or the host's addresses are narrower. */
bool umbra_shadow_port_attach(UmbraDeviceSpace* space, const PCIDevice* device,
                              HostIOMMUDevice* host_device, Error** errp);
/* Empties the container if no other device uses it. Does nothing for a device that is not attached.
 */
void umbra_shadow_port_detach(UmbraDeviceSpace* space, const PCIDevice* device);
void umbra_shadow_port_detach_all(UmbraDeviceSpace* space);

/* A listener came or went. One that came asks for a replay next. */
void umbra_shadow_port_listeners_changed(UmbraDeviceSpace* space);
/* To be called after everything in which the shadow may have switched the view: it cannot be called
 * meanwhile, and listeners that came by that are told of mappings from here on. */
void umbra_shadow_port_review(UmbraDeviceSpace* space);
/* Tells `notifier`, which has just been registered, what is mapped. */
void umbra_shadow_port_replay(UmbraDeviceSpace* space, IOMMUNotifier* notifier);

#endif
