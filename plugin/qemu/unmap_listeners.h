// SPDX-License-Identifier: GPL-2.0-or-later
//
// Listeners that hear of unmaps only: vhost, and devices with a TLB of their own. The shadow has no
// part in what such a listener keeps. So the listener is told of every invalidation that covers the
// device.
//
// Functions need the big lock.
#ifndef UMBRA_QEMU_UNMAP_LISTENERS_H
#define UMBRA_QEMU_UNMAP_LISTENERS_H

#include "plugin/qemu/compat.h"

#include "plugin/qemu/device_space.h"

/* The listeners of the space together have `flags`: keeps UmbraSpaceContext::unmap_listeners. */
void umbra_unmap_listeners_count(UmbraDeviceSpace* space, IOMMUNotifierFlag flags);

/* Whether the space has a listener that hears of unmaps only. */
bool umbra_unmap_listeners_any(UmbraDeviceSpace* space);

/* Tells the listeners that nothing in `first` to `last` may be used any more. `type` says whether
 * their own cache or a device's TLB is meant. */
void umbra_unmap_listeners_notify(UmbraDeviceSpace* space, IOMMUNotifierFlag type, uint64_t first,
                                  uint64_t last);

#endif
