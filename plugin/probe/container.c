/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugin/qemu/compat.h"

#include "plugin/probe/container.h"

#include "hw/pci/pci.h"
#include "qapi/error.h"
#include "qom/object.h"

#define TYPE_PROBE_CONTAINER "umbra-probe-container"
/* The end of the name tells host devices of VFIO from others. */
#define TYPE_PROBE_HOST_DEVICE "umbra-probe-host-device-vfio"

struct UmbraProbeContainer {
    UmbraVfioContainer base;

    struct UmbraProbeListener* listener;
    VFIODevice* device; /* only its container is set */
    HostIOMMUDevice* host_device;
};

/* The offset in the machine's RAM, which below 4 GiB is the guest-physical address. */
static uint64_t target_of(void* host) {
    ram_addr_t offset = 0;

    memory_region_from_host(host, &offset);
    return offset;
}

static int container_map(const UmbraVfioContainer* base, hwaddr iova, uint64_t bytes, void* host,
                         bool read_only) {
    const struct UmbraProbeContainer* container =
        container_of(base, struct UmbraProbeContainer, base);
    const struct UmbraMapping mapping = {.first = iova,
                                         .last = iova + (bytes - 1),
                                         .target = target_of(host),
                                         .flags = read_only ? IOMMU_RO : IOMMU_RW};

    if (container->listener->refuse_maps) {
        return -ENOMEM;
    }
    return umbra_probe_listener_map(container->listener, &mapping);
}

static int container_unmap(const UmbraVfioContainer* base, hwaddr iova, uint64_t bytes) {
    const struct UmbraProbeContainer* container =
        container_of(base, struct UmbraProbeContainer, base);

    return umbra_probe_listener_unmap(container->listener, iova, iova + (bytes - 1));
}

UMBRA_DEFINE_VFIO_DMA_MAP(dma_map, container_map)
UMBRA_DEFINE_VFIO_DMA_UNMAP(dma_unmap, container_unmap)

static void container_class_init(ObjectClass* class, UmbraClassData* data) {
    VFIOIOMMUClass* container_class = VFIO_IOMMU_CLASS(class);

    container_class->dma_map = dma_map;
    container_class->dma_unmap = dma_unmap;
}

static int get_cap(HostIOMMUDevice* device, int cap, Error** errp) {
    return cap == HOST_IOMMU_DEVICE_CAP_AW_BITS ? HOST_IOMMU_DEVICE_CAP_AW_BITS_MAX : 0;
}

static void host_device_class_init(ObjectClass* class, UmbraClassData* data) {
    HOST_IOMMU_DEVICE_CLASS(class)->get_cap = get_cap;
}

void umbra_probe_container_register_types(void) {
    static const TypeInfo container_type = {
        .name = TYPE_PROBE_CONTAINER,
        .parent = TYPE_VFIO_IOMMU,
        .instance_size = sizeof(struct UmbraProbeContainer),
        .class_init = container_class_init,
    };
    static const TypeInfo host_device_type = {
        .name = TYPE_PROBE_HOST_DEVICE,
        .parent = TYPE_HOST_IOMMU_DEVICE,
        .class_init = host_device_class_init,
    };

    if (object_class_by_name(TYPE_VFIO_IOMMU) != NULL) {
        type_register_static(&container_type);
        type_register_static(&host_device_type);
    }
}

struct UmbraProbeContainer* umbra_probe_container_new(struct UmbraProbeListener* listener,
                                                      Error** errp) {
    struct UmbraProbeContainer* container;

    if (object_class_by_name(TYPE_PROBE_CONTAINER) == NULL) {
        error_setg(errp, "container=on needs a QEMU that was built with VFIO");
        return NULL;
    }
    container = (struct UmbraProbeContainer*)object_new(TYPE_PROBE_CONTAINER);
    container->listener = listener;
    listener->container = &container->base;
    container->device = g_new0(VFIODevice, 1);
    container->device->bcontainer = &container->base;
    container->host_device = HOST_IOMMU_DEVICE(object_new(TYPE_PROBE_HOST_DEVICE));
    container->host_device->agent = container->device;
    return container;
}

bool umbra_probe_container_attach(struct UmbraProbeContainer* container, PCIDevice* device,
                                  Error** errp) {
    return pci_device_set_iommu_device(device, container->host_device, errp);
}

void umbra_probe_container_detach(struct UmbraProbeContainer* container, PCIDevice* device) {
    pci_device_unset_iommu_device(device);
}

void umbra_probe_container_free(struct UmbraProbeContainer* container) {
    if (container != NULL) {
        container->listener->container = NULL;
        object_unref(OBJECT(container->host_device));
        g_free(container->device);
        object_unref(OBJECT(container));
    }
}
