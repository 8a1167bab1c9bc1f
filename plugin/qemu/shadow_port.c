// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/shadow_port.h"

#include "hw/pci/pci.h"
#include "plugin/bridge/requests.h"
#include "qapi/error.h"
#include "system/dma.h"

/* ---- A VFIO container ---- */

typedef struct UmbraContainerPort {
    UmbraDeviceSpace* space;
    UmbraVfioContainer* container;
    UmbraShadowDevice* shadow;
    GSList* devices; /* whose DMA the container is for */
} UmbraContainerPort;

static uint16_t container_source(void* opaque) {
    const UmbraContainerPort* port = opaque;

    return umbra_device_space_source(port->space);
}

static size_t container_map(void* opaque, const UmbraHostMapping* mappings, size_t count, int* error) {
    UmbraContainerPort* port = opaque;

    for (size_t i = 0; i < count; i++) {
        const UmbraHostMapping* mapping = &mappings[i];
        const int failure =
            umbra_vfio_dma_map(port->container, mapping->iova, mapping->bytes, mapping->host,
                               !(mapping->access & UMBRA_ACCESS_WRITE));

        if (failure != 0) {
            *error = -failure;
            return i;
        }
    }
    return count;
}

static int container_unmap(void* opaque, uint64_t iova, uint64_t bytes) {
    UmbraContainerPort* port = opaque;

    return -umbra_vfio_dma_unmap(port->container, iova, bytes);
}

/* Several containers of one space change their mode in one go: each is emptied before the first is
 * told of the new mode. */
static void container_set_mode(void* opaque, UmbraDmaMode mode) {
    UmbraContainerPort* port = opaque;

    port->space->shadow_mode = mode;
    port->space->switching = true;
    umbra_device_space_update(port->space);
    port->space->switching = false;
}

/* QEMU's VFIO code registers a notifier for its container all the same. */
static bool is_containers(const UmbraDeviceSpace* space, const IOMMUNotifier* notifier) {
    for (GSList* link = space->containers; link != NULL; link = link->next) {
        const UmbraContainerPort* port = link->data;
        VFIOGuestIOMMU* guest;

        QLIST_FOREACH(guest, &port->container->giommu_list, giommu_next) {
            if (&guest->n == notifier) {
                return true;
            }
        }
    }
    return false;
}

/* ---- IOMMU notifiers ---- */

/* Whether it is told of mappings in this way. */
static bool is_served(const UmbraDeviceSpace* space, const IOMMUNotifier* notifier) {
    return (notifier->notifier_flags & IOMMU_NOTIFIER_MAP) && !is_containers(space, notifier);
}

static bool has_served(UmbraDeviceSpace* space) {
    IOMMUNotifier* notifier;

    IOMMU_NOTIFIER_FOREACH(notifier, &space->translated) {
        if (is_served(space, notifier)) {
            return true;
        }
    }
    return false;
}

static uint16_t notifiers_source(void* opaque) {
    return umbra_device_space_source(opaque);
}

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

static void notify_maps(IOMMUNotifier* notifier, const UmbraHostMapping* mappings, size_t count) {
    for (size_t i = 0; i < count; i++) {
        notify(notifier, mappings[i].iova, mappings[i].bytes, mappings[i].guest,
               (IOMMUAccessFlags)mappings[i].access);
    }
}

static size_t notifiers_map(void* opaque, const UmbraHostMapping* mappings, size_t count, int* error) {
    UmbraDeviceSpace* space = opaque;
    IOMMUNotifier* notifier;

    if (space->replay_target != NULL) {
        notify_maps(space->replay_target, mappings, count);
    } else if (!space->listeners_muted) {
        IOMMU_NOTIFIER_FOREACH(notifier, &space->translated) {
            if (notifier != space->newcomer && is_served(space, notifier)) {
                notify_maps(notifier, mappings, count);
            }
        }
    }
    /* Muted: a listener is told of what there was before it by a replay, which it asks for. */
    return count;
}

static int notifiers_unmap(void* opaque, uint64_t iova, uint64_t bytes) {
    UmbraDeviceSpace* space = opaque;
    IOMMUNotifier* notifier;

    if (space->replay_target != NULL) {
        notify(space->replay_target, iova, bytes, 0, IOMMU_NONE);
        return 0;
    }
    IOMMU_NOTIFIER_FOREACH(notifier, &space->translated) {
        if (is_served(space, notifier)) {
            notify(notifier, iova, bytes, 0, IOMMU_NONE);
        }
    }
    return 0;
}

static void notifiers_set_mode(void* opaque, UmbraDmaMode mode) {}

/* ---- Attaching ---- */

static void add_notifiers(UmbraDeviceSpace* space) {
    const UmbraHostMapper port = {
        .opaque = space,
        .source = notifiers_source,
        .map = notifiers_map,
        .unmap = notifiers_unmap,
        .set_mode = notifiers_set_mode,
    };

    space->shadow = umbra_shadow_add(space->context->unit, &port);
}

static void drop_notifiers(UmbraDeviceSpace* space) {
    UmbraShadowDevice* shadow = g_steal_pointer(&space->shadow);

    if (shadow != NULL) {
        umbra_shadow_remove(space->context->unit, shadow);
    }
}

/* What the container was told by its notifiers, before it was known to be one, goes. */
static void empty_container(const UmbraDeviceSpace* space, UmbraVfioContainer* container) {
    VFIOGuestIOMMU* guest;

    QLIST_FOREACH(guest, &container->giommu_list, giommu_next) {
        if (guest->iommu_mr == &space->translated) {
            notify(&guest->n, 0, UINT64_C(1) << space->context->address_width, 0, IOMMU_NONE);
        }
    }
}

static UmbraContainerPort* add_container(UmbraDeviceSpace* space, UmbraVfioContainer* container) {
    UmbraContainerPort* self = g_new0(UmbraContainerPort, 1);
    const UmbraHostMapper port = {
        .opaque = self,
        .source = container_source,
        .map = container_map,
        .unmap = container_unmap,
        .set_mode = container_set_mode,
    };

    self->space = space;
    self->container = container;
    space->containers = g_slist_prepend(space->containers, self);
    self->shadow = umbra_shadow_add(space->context->unit, &port);
    return self;
}

static void drop_container(UmbraContainerPort* port) {
    UmbraDeviceSpace* space = port->space;

    umbra_shadow_remove(space->context->unit, port->shadow);
    space->containers = g_slist_remove(space->containers, port);
    g_slist_free(port->devices);
    g_free(port);
}

static UmbraContainerPort* find_container(UmbraDeviceSpace* space, UmbraVfioContainer* container) {
    for (GSList* link = space->containers; link != NULL; link = link->next) {
        UmbraContainerPort* port = link->data;

        if (port->container == container) {
            return port;
        }
    }
    return NULL;
}

bool umbra_shadow_port_attach(UmbraDeviceSpace* space, const PCIDevice* device,
                              HostIOMMUDevice* host_device, Error** errp) {
    UmbraContainerPort* port;
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
                   PCI_SLOT(device->devfn), PCI_FUNC(device->devfn));
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
    port = find_container(space, container);
    if (port == NULL) {
        if (space->shadow != NULL) {
            empty_container(space, container);
        }
        port = add_container(space, container);
        umbra_shadow_port_review(space);
    }
    port->devices = g_slist_prepend(port->devices, (gpointer)device);
    return true;
}

void umbra_shadow_port_detach(UmbraDeviceSpace* space, const PCIDevice* device) {
    for (GSList* link = space->containers; link != NULL; link = link->next) {
        UmbraContainerPort* port = link->data;

        if (g_slist_find(port->devices, device) != NULL) {
            port->devices = g_slist_remove(port->devices, device);
            if (port->devices == NULL) {
                drop_container(port);
            }
            return;
        }
    }
}

void umbra_shadow_port_detach_all(UmbraDeviceSpace* space) {
    while (space->containers != NULL) {
        drop_container(space->containers->data);
    }
}

void umbra_shadow_port_review(UmbraDeviceSpace* space) {
    const bool wanted = has_served(space);

    if (space->switching || wanted == (space->shadow != NULL)) {
        return;
    }
    if (wanted) {
        add_notifiers(space);
    } else {
        drop_notifiers(space);
    }
}

void umbra_shadow_port_listeners_changed(UmbraDeviceSpace* space) {
    space->listeners_muted = true;
    umbra_shadow_port_review(space);
    space->listeners_muted = false;
}

void umbra_shadow_port_replay(UmbraDeviceSpace* space, IOMMUNotifier* notifier) {
    /* While the view is switched nothing is mapped yet: whatever will be, everybody is told of. */
    if (space->switching || !is_served(space, notifier)) {
        return;
    }
    umbra_shadow_port_listeners_changed(space);
    /* VFIO's dirty tracking asks with a notifier that it has not registered. */
    if (space->shadow == NULL) {
        return;
    }
    /* What is left over of the guest's invalidations concerns the listeners that there are. It
     * would reach only the new one if the replay came to it. */
    space->newcomer = notifier;
    umbra_shadow_settle(space->context->unit);
    space->newcomer = NULL;

    space->replay_target = notifier;
    umbra_shadow_replay(space->context->unit, space->shadow);
    space->replay_target = NULL;
}
