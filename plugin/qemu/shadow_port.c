// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/shadow_port.h"

#include "hw/pci/pci.h"
#include "qapi/error.h"
#include "system/dma.h"

static uint16_t port_source(void* opaque) {
    return umbra_device_space_source(opaque);
}

/* ---- A VFIO container ---- */

static int container_map(void* opaque, uint64_t iova, uint64_t bytes, void* host, uint64_t guest,
                         unsigned access) {
    UmbraDeviceSpace* space = opaque;

    return -umbra_vfio_dma_map(space->container, iova, bytes, host, !(access & UMBRA_ACCESS_WRITE));
}

static int container_unmap(void* opaque, uint64_t iova, uint64_t bytes) {
    UmbraDeviceSpace* space = opaque;

    return -umbra_vfio_dma_unmap(space->container, iova, bytes);
}

static void container_set_mode(void* opaque, UmbraDmaMode mode) {
    UmbraDeviceSpace* space = opaque;

    space->shadow_mode = mode;
    umbra_device_space_update(space);
}

/* ---- IOMMU notifiers ---- */

/* Calls the listener itself, as memory_region_notify_iommu_one() would after its checks: it is
 * asked only for what it registered for, and only inside its range. A listener may change the
 * entry. */
static void notify(IOMMUNotifier* notifier, uint64_t iova, uint64_t bytes, uint64_t guest,
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

static void notify_all(UmbraDeviceSpace* space, uint64_t iova, uint64_t bytes, uint64_t guest,
                       IOMMUAccessFlags access) {
    IOMMUNotifier* notifier;

    if (space->replay_target != NULL) {
        notify(space->replay_target, iova, bytes, guest, access);
        return;
    }
    IOMMU_NOTIFIER_FOREACH(notifier, &space->translated) {
        notify(notifier, iova, bytes, guest, access);
    }
}

static int notifiers_map(void* opaque, uint64_t iova, uint64_t bytes, void* host, uint64_t guest,
                         unsigned access) {
    UmbraDeviceSpace* space = opaque;

    /* A listener is told of what there was before it by a replay, which every one asks for. */
    if (!space->listeners_muted) {
        notify_all(space, iova, bytes, guest, (IOMMUAccessFlags)access);
    }
    return 0;
}

static int notifiers_unmap(void* opaque, uint64_t iova, uint64_t bytes) {
    notify_all(opaque, iova, bytes, 0, IOMMU_NONE);
    return 0;
}

static void notifiers_set_mode(void* opaque, UmbraDmaMode mode) {}

/* ---- Attaching ---- */

static void add(UmbraDeviceSpace* space) {
    const bool is_vfio = space->container != NULL;
    const UmbraHostPort port = {
        .opaque = space,
        .source = port_source,
        .map = is_vfio ? container_map : notifiers_map,
        .unmap = is_vfio ? container_unmap : notifiers_unmap,
        .set_mode = is_vfio ? container_set_mode : notifiers_set_mode,
    };

    space->shadow = umbra_shadow_add(space->context->unit, &port);
}

static void drop(UmbraDeviceSpace* space) {
    UmbraShadowDevice* shadow = g_steal_pointer(&space->shadow);

    if (shadow != NULL) {
        umbra_shadow_remove(space->context->unit, shadow);
    }
}

bool umbra_shadow_port_attach(UmbraDeviceSpace* space, HostIOMMUDevice* host_device, Error** errp) {
    UmbraVfioContainer* container = umbra_vfio_container_of(host_device);
    HostIOMMUDeviceClass* host_class = HOST_IOMMU_DEVICE_GET_CLASS(host_device);
    int width;

    if (!space->context->caching_mode) {
        error_setg(errp,
                   "caching-mode=off cannot work with a passed-through device: the guest would not "
                   "say when it maps something. Start umbra-viommu with caching-mode=on");
        return false;
    }
    if (container == NULL) {
        error_setg(errp, "device %02x.%x is not one of VFIO's: umbra-viommu cannot map for it",
                   PCI_SLOT(space->devfn), PCI_FUNC(space->devfn));
        return false;
    }
    width = host_class->get_cap(host_device, HOST_IOMMU_DEVICE_CAP_AW_BITS, errp);
    if (width < 0) {
        return false;
    }
    if ((unsigned)width < space->context->address_width) {
        error_setg(errp, "the host's IOMMU takes addresses of %d bits: start umbra-viommu with %s",
                   width, width >= 39 ? "aw-bits=39" : "another host");
        return false;
    }
    drop(space);
    space->container = container;
    add(space);
    return true;
}

void umbra_shadow_port_detach(UmbraDeviceSpace* space) {
    if (space->container == NULL) {
        return;
    }
    drop(space);
    space->container = NULL;
}

void umbra_shadow_port_listeners_changed(UmbraDeviceSpace* space, bool want_maps) {
    if (space->container != NULL || want_maps == (space->shadow != NULL)) {
        return;
    }
    if (want_maps) {
        space->listeners_muted = true;
        add(space);
        space->listeners_muted = false;
    } else {
        drop(space);
    }
}

void umbra_shadow_port_replay(UmbraDeviceSpace* space, IOMMUNotifier* notifier) {
    if (space->container != NULL || space->shadow == NULL) {
        return;
    }
    space->replay_target = notifier;
    umbra_shadow_replay(space->context->unit, space->shadow);
    space->replay_target = NULL;
}
