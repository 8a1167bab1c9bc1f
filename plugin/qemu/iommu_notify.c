// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/iommu_notify.h"

#include "system/dma.h"

/* Calls the listener itself, as memory_region_notify_iommu_one() would after its checks. A listener
 * may change the entry. */
void umbra_iommu_notify(IOMMUNotifier* notifier, uint64_t iova, uint64_t bytes, uint64_t guest,
                        IOMMUAccessFlags access) {
    const IOMMUNotifierFlag type = access == IOMMU_NONE ? IOMMU_NOTIFIER_UNMAP : IOMMU_NOTIFIER_MAP;
    const uint64_t first = MAX(iova, notifier->start);
    const uint64_t last = MIN(iova + (bytes - 1), notifier->end);

    if (!(notifier->notifier_flags & type)) {
        return;
    }
    for (uint64_t at = first; at <= last;) {
        const uint64_t mask = is_power_of_2(bytes) && !(at & (bytes - 1)) && last - at == bytes - 1
                                  ? bytes - 1
                                  : dma_aligned_pow2_mask(at, last, 64);
        IOMMUTLBEntry entry = {
            .target_as = &address_space_memory,
            .iova = at,
            .translated_addr = guest + (at - iova),
            .addr_mask = mask,
            .perm = access,
        };

        notifier->notify(notifier, &entry);
        if (last - at == mask) {
            return;
        }
        at += mask + 1;
    }
}
