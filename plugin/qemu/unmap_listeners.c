// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/unmap_listeners.h"

#include "hw/pci/pci.h"
#include "hw/pci/pci_bridge.h"
#include "system/dma.h"

/* The shadow serves a listener that hears of maps as well. */
static bool hears_unmaps_only(IOMMUNotifierFlag flags) {
    return (flags & IOMMU_NOTIFIER_IOTLB_EVENTS) == IOMMU_NOTIFIER_UNMAP;
}

bool umbra_unmap_listeners_any(UmbraDeviceSpace* space) {
    IOMMUNotifier* notifier;

    IOMMU_NOTIFIER_FOREACH(notifier, &space->translated) {
        if (hears_unmaps_only(notifier->notifier_flags)) {
            return true;
        }
    }
    return false;
}

/* Behind a conventional bridge all devices have one requester id: that of the bridge, or one on the
 * bridge's secondary bus. */
static bool is_shared(const UmbraDeviceSpace* space) {
    const PCIDevice* device = space->bus->devices[space->devfn];

    return !pci_bus_is_express(space->bus) ||
           (device != NULL && IS_PCI_BRIDGE(device) &&
            !pci_bus_is_express(pci_bridge_get_sec_bus(PCI_BRIDGE(device))));
}

/* QEMU reports the flags of all listeners together, and only when those change. So a listener for
 * unmaps only can come to a space that devices share without a report. */
void umbra_unmap_listeners_count(UmbraDeviceSpace* space, IOMMUNotifierFlag flags) {
    const bool may =
        hears_unmaps_only(flags) || ((flags & IOMMU_NOTIFIER_UNMAP) && is_shared(space));

    space->context->unmap_listeners += (unsigned)may - (unsigned)space->may_hear_unmaps_only;
    space->may_hear_unmaps_only = may;
}

void umbra_unmap_listeners_notify(UmbraDeviceSpace* space, IOMMUNotifierFlag type, uint64_t first,
                                  uint64_t last) {
    const uint64_t highest = MAKE_64BIT_MASK(0, space->context->address_width);
    IOMMUNotifier* notifier;

    if (!(space->notifier_flags & type)) {
        return;
    }
    IOMMU_NOTIFIER_FOREACH(notifier, &space->translated) {
        uint64_t at = MAX(first, notifier->start);
        const uint64_t end = MIN(MIN(last, notifier->end), highest);

        /* Listeners that the shadow serves are told of the shadow's unmaps, and of nothing else. */
        if (!(notifier->notifier_flags & type) ||
            (type == IOMMU_NOTIFIER_UNMAP && !hears_unmaps_only(notifier->notifier_flags))) {
            continue;
        }
        /* A notification covers a naturally aligned power of two. */
        while (at <= end) {
            const uint64_t mask = dma_aligned_pow2_mask(at, end, space->context->address_width);
            const IOMMUTLBEvent event = {
                .type = type,
                .entry =
                    {
                        .target_as = &address_space_memory,
                        .iova = at,
                        .addr_mask = mask,
                        .perm = IOMMU_NONE,
                    },
            };

            memory_region_notify_iommu_one(notifier, &event);
            at += mask + 1;
        }
    }
}
