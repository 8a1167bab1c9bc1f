// SPDX-License-Identifier: GPL-2.0-or-later
//
// The way of the shadow's mappings to every listener that is no VFIO container: vhost-vdpa, a
// mediated device, a probe. They register IOMMU notifiers for maps (IOMMU_NOTIFIER_MAP), and are
// told of naturally aligned powers of two, one call each; nothing comes back. Such a listener
// exists only while the view is translated, so the platform switches the view.
//
// A VFIO device is served in this way for the moment between its listener's registration and
// set_iommu_device, when it turns out to be VFIO's. Behind a bridge both ways may be in use at
// once: then the notifiers of containers are left out.
//
// Functions need the big lock.
#ifndef UMBRA_QEMU_NOTIFIER_MAPPER_H
#define UMBRA_QEMU_NOTIFIER_MAPPER_H

#include "plugin/qemu/compat.h"

#include "plugin/qemu/device_space.h"

/* A listener came or went. One that came asks for a replay next. */
void umbra_notifier_mapper_listeners_changed(UmbraDeviceSpace* space);
/* To be called after everything in which the shadow may have switched the view. The shadow cannot
 * be called meanwhile; listeners that came by that are told of maps from here on. */
void umbra_notifier_mapper_review(UmbraDeviceSpace* space);
/* Tells `notifier`, which has just been registered, of everything that is mapped. */
void umbra_notifier_mapper_replay(UmbraDeviceSpace* space, IOMMUNotifier* notifier);

#endif
