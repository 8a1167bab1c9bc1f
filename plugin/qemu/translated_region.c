// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/translated_region.h"

#include "hw/pci/pci.h"
#include "plugin/bridge/requests.h"
#include "plugin/qemu/device_space.h"
#include "plugin/qemu/notifier_mapper.h"
#include "plugin/qemu/unmap_listeners.h"
#include "qapi/error.h"

#define SMALLEST_PAGE_MASK UINT64_C(0xfff)

static IOMMUTLBEntry region_translate(IOMMUMemoryRegion* region, hwaddr iova,
                                      IOMMUAccessFlags wanted, int index) {
    UmbraDeviceSpace* space = container_of(region, UmbraDeviceSpace, translated);
    const uint16_t source = umbra_device_space_source(space);
    /* QEMU asks with IOMMU_NONE when it wants to know the mapping and no DMA happens. */
    const UmbraTranslation translation =
        wanted == IOMMU_NONE ? umbra_unit_lookup(space->context->unit, source, iova)
                             : umbra_unit_translate(space->context->unit, source, iova, wanted);

    if (!translation.ok) {
        return (IOMMUTLBEntry){
            .target_as = &address_space_memory,
            .iova = iova & ~SMALLEST_PAGE_MASK,
            .addr_mask = SMALLEST_PAGE_MASK,
            .perm = IOMMU_NONE,
        };
    }
    return (IOMMUTLBEntry){
        .target_as = &address_space_memory,
        .iova = iova & ~translation.page_mask,
        .translated_addr = translation.address & ~translation.page_mask,
        .addr_mask = translation.page_mask,
        .perm = (IOMMUAccessFlags)translation.access,
    };
}

QEMU_BUILD_BUG_ON((int)UMBRA_ACCESS_READ != (int)IOMMU_RO ||
                  (int)UMBRA_ACCESS_WRITE != (int)IOMMU_WO);

static int region_notify_flag_changed(IOMMUMemoryRegion* region, IOMMUNotifierFlag old_flags,
                                      IOMMUNotifierFlag new_flags, Error** errp) {
    UmbraDeviceSpace* space = container_of(region, UmbraDeviceSpace, translated);

    if ((new_flags & IOMMU_NOTIFIER_MAP) && !space->context->caching_mode) {
        error_setg(
            errp,
            "device %02x.%x needs to know what the guest maps, and with caching-mode=off the guest does not say: start umbra-viommu with caching-mode=on",
            PCI_SLOT(space->devfn), PCI_FUNC(space->devfn));
        return -ENOTSUP;
    }
    if ((new_flags & IOMMU_NOTIFIER_DEVIOTLB_UNMAP) && !space->context->device_iotlb) {
        error_setg(
            errp,
            "device %02x.%x has a TLB of its own (ats=on): start umbra-viommu with device-iotlb=on, or the device with ats=off",
            PCI_SLOT(space->devfn), PCI_FUNC(space->devfn));
        return -ENOTSUP;
    }
    umbra_unmap_listeners_count(space, new_flags);
    space->notifier_flags = new_flags;
    umbra_notifier_mapper_listeners_changed(space);
    return 0;
}

/* Tells a listener of every mapping there is. One that only hears of unmaps has nothing to be told;
 * QEMU's own replay would try all 2^52 pages. */
static void region_replay(IOMMUMemoryRegion* region, IOMMUNotifier* notifier) {
    umbra_notifier_mapper_replay(container_of(region, UmbraDeviceSpace, translated), notifier);
}

static void translated_region_class_init(ObjectClass* klass, UmbraClassData* data) {
    IOMMUMemoryRegionClass* region_class = IOMMU_MEMORY_REGION_CLASS(klass);

    region_class->translate = region_translate;
    region_class->notify_flag_changed = region_notify_flag_changed;
    region_class->replay = region_replay;
}

void umbra_translated_region_register_type(void) {
    static const TypeInfo region_info = {
        .name = TYPE_UMBRA_TRANSLATED_REGION,
        .parent = TYPE_IOMMU_MEMORY_REGION,
        .class_init = translated_region_class_init,
    };

    type_register_static(&region_info);
}
