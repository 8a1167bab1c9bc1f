// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/vfio_container.h"

#include "hw/pci/pci.h"
#include "migration/blocker.h"
#include "plugin/bridge/requests.h"
#include "plugin/bridge/unit.h"
#include "plugin/qemu/iommu_notify.h"
#include "qapi/error.h"
#include "qemu/range.h"

/* A container that the shadow fills. */
typedef struct UmbraVfioMapper {
    UmbraDeviceSpace* space;
    UmbraVfioContainer* container;
    UmbraShadowDevice* shadow;
    GSList* devices; /* PCIDevices whose DMA goes through the container */
    Error* blocker;  /* of migration */
} UmbraVfioMapper;

static uint16_t container_source(void* opaque) {
    const UmbraVfioMapper* mapper = opaque;

    return umbra_device_space_source(mapper->space);
}

static size_t container_map(void* opaque, const UmbraHostMapping* mappings, size_t count,
                            int* error) {
    UmbraVfioMapper* mapper = opaque;

    for (size_t i = 0; i < count; i++) {
        const UmbraHostMapping* mapping = &mappings[i];
        const int failure =
            umbra_vfio_dma_map(mapper->container, mapping->iova, mapping->bytes, mapping->host,
                               !(mapping->access & UMBRA_ACCESS_WRITE));

        if (failure != 0) {
            *error = -failure;
            return i;
        }
    }
    return count;
}

static int container_unmap(void* opaque, uint64_t iova, uint64_t bytes) {
    UmbraVfioMapper* mapper = opaque;

    return -umbra_vfio_dma_unmap(mapper->container, iova, bytes);
}

/* If a space has several containers, the shadow has emptied all of them before the first one is
 * told of the new mode. */
static void container_set_mode(void* opaque, UmbraDmaMode mode) {
    UmbraDeviceSpace* space = ((UmbraVfioMapper*)opaque)->space;
    const UmbraListening before = space->listening;

    space->shadow_mode = mode;
    space->listening = UMBRA_LISTENING_SWITCHING;
    umbra_device_space_update(space);
    space->listening = before;
}

bool umbra_vfio_container_owns(const UmbraDeviceSpace* space, const IOMMUNotifier* notifier) {
    for (GSList* link = space->containers; link != NULL; link = link->next) {
        const UmbraVfioMapper* mapper = link->data;
        VFIOGuestIOMMU* guest;

        QLIST_FOREACH(guest, &mapper->container->giommu_list, giommu_next) {
            if (&guest->n == notifier) {
                return true;
            }
        }
    }
    return false;
}

/* Unmaps everything that the container got through its notifiers before it was attached. */
static void empty_container(const UmbraDeviceSpace* space, UmbraVfioContainer* container) {
    VFIOGuestIOMMU* guest;

    QLIST_FOREACH(guest, &container->giommu_list, giommu_next) {
        if (guest->iommu_mr == &space->translated) {
            umbra_iommu_notify(&guest->n, 0, UINT64_C(1) << space->context->address_width, 0,
                               IOMMU_NONE);
        }
    }
}

/* Which pages a device has written is lost when the guest unmaps them, so the machine must not be
 * copied. QEMU's VFIO need not know that: it can leave the unit to us. Returns the blocker, or NULL
 * with an error. */
static Error* block_migration(const PCIDevice* device, Error** errp) {
    Error* blocker = NULL;

    error_setg(
        &blocker,
        "device %02x.%x is passed through behind umbra-viommu, which does not keep track of the memory that it writes: unplug it first",
        PCI_SLOT(device->devfn), PCI_FUNC(device->devfn));
    return migrate_add_blocker(&blocker, errp) == 0 ? blocker : NULL;
}

/* The IOVAs that the host can map; empty if it does not say. The caller frees the array. */
static GArray* usable_ranges(HostIOMMUDevice* host_device) {
    const HostIOMMUDeviceClass* host_class = HOST_IOMMU_DEVICE_GET_CLASS(host_device);
    GList* list =
        host_class->get_iova_ranges != NULL ? host_class->get_iova_ranges(host_device) : NULL;
    GArray* usable = g_array_new(false, false, sizeof(UmbraIovaRange));

    for (GList* link = list; link != NULL; link = link->next) {
        Range* range = link->data;
        UmbraIovaRange next;

        if (range_is_empty(range)) {
            continue;
        }
        next = (UmbraIovaRange){.first = range_lob(range), .last = range_upb(range)};
        g_array_append_val(usable, next);
    }
    g_list_free_full(list, g_free);
    return usable;
}

static UmbraVfioMapper* add_container(UmbraDeviceSpace* space, UmbraVfioContainer* container,
                                      HostIOMMUDevice* host_device, Error* blocker) {
    UmbraVfioMapper* self = g_new0(UmbraVfioMapper, 1);
    g_autoptr(GArray) usable = usable_ranges(host_device);
    const UmbraHostMapper functions = {
        .opaque = self,
        .source = container_source,
        .map = container_map,
        .unmap = container_unmap,
        .set_mode = container_set_mode,
        .usable = (const UmbraIovaRange*)(const void*)usable->data,
        .usable_count = usable->len,
        .write_implies_read = true, /* QEMU's VFIO knows read-only mappings and others */
    };

    self->space = space;
    self->container = container;
    self->blocker = blocker;
    space->containers = g_slist_prepend(space->containers, self);
    self->shadow = umbra_shadow_add(space->context->unit, &functions);
    return self;
}

static void drop_container(UmbraVfioMapper* mapper) {
    UmbraDeviceSpace* space = mapper->space;

    umbra_shadow_remove(space->context->unit, mapper->shadow);
    space->containers = g_slist_remove(space->containers, mapper);
    migrate_del_blocker(&mapper->blocker);
    g_slist_free(mapper->devices);
    g_free(mapper);
}

static UmbraVfioMapper* find_container(UmbraDeviceSpace* space, UmbraVfioContainer* container) {
    for (GSList* link = space->containers; link != NULL; link = link->next) {
        UmbraVfioMapper* mapper = link->data;

        if (mapper->container == container) {
            return mapper;
        }
    }
    return NULL;
}

/* False if the host takes fewer bits than the unit offers. */
static bool fit_address_width(UmbraSpaceContext* context, unsigned host_width) {
    enum { NARROWEST = 39 };

    if (host_width < context->address_width && host_width >= NARROWEST &&
        context->address_width_open) {
        context->address_width = NARROWEST;
        umbra_unit_set_address_width(context->unit, NARROWEST);
    }
    return host_width >= context->address_width;
}

bool umbra_vfio_container_attach(UmbraDeviceSpace* space, const PCIDevice* device,
                                 HostIOMMUDevice* host_device, Error** errp) {
    UmbraVfioMapper* mapper;
    UmbraVfioContainer* container = umbra_vfio_container_of(host_device);
    HostIOMMUDeviceClass* host_class = HOST_IOMMU_DEVICE_GET_CLASS(host_device);
    int width;

    if (!space->context->caching_mode) {
        error_setg(
            errp,
            "caching-mode=off cannot work with a passed-through device: the guest would not say when it maps something. Start umbra-viommu with caching-mode=on");
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
    if (!fit_address_width(space->context, (unsigned)width)) {
        error_setg(
            errp,
            "the host's IOMMU takes addresses of %d bits, and umbra-viommu has aw-bits=%u: %s",
            width, space->context->address_width,
            width >= 39 ? "start it with aw-bits=39"
                        : "no smaller width than 39 exists, so this host cannot be used");
        return false;
    }
    mapper = find_container(space, container);
    if (mapper == NULL) {
        Error* blocker = block_migration(device, errp);

        if (blocker == NULL) {
            return false;
        }
        if (space->shadow != NULL) {
            empty_container(space, container);
        }
        mapper = add_container(space, container, host_device, blocker);
    }
    mapper->devices = g_slist_prepend(mapper->devices, (gpointer)device);
    return true;
}

void umbra_vfio_container_detach(UmbraDeviceSpace* space, const PCIDevice* device) {
    for (GSList* link = space->containers; link != NULL; link = link->next) {
        UmbraVfioMapper* mapper = link->data;

        if (g_slist_find(mapper->devices, device) != NULL) {
            mapper->devices = g_slist_remove(mapper->devices, device);
            if (mapper->devices == NULL) {
                drop_container(mapper);
            }
            return;
        }
    }
}

void umbra_vfio_container_detach_all(UmbraDeviceSpace* space) {
    while (space->containers != NULL) {
        drop_container(space->containers->data);
    }
}
