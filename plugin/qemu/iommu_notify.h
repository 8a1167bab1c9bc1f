// SPDX-License-Identifier: GPL-2.0-or-later
//
// Telling an IOMMU notifier of a map or an unmap of any size.
#ifndef UMBRA_QEMU_IOMMU_NOTIFY_H
#define UMBRA_QEMU_IOMMU_NOTIFY_H

#include "plugin/qemu/compat.h"

/* Tells `notifier` that `bytes` from `iova` on lead to guest memory at `guest` with `access`, or to
 * nothing if `access` is IOMMU_NONE: as naturally aligned powers of two, one call each. The
 * notifier is told only of what it registered for, and only inside its range. Needs the big lock.
 */
void umbra_iommu_notify(IOMMUNotifier* notifier, uint64_t iova, uint64_t bytes, uint64_t guest,
                        IOMMUAccessFlags access);

#endif
