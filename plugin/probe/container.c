/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugin/qemu/compat.h"

#include "plugin/probe/container.h"

#include "hw/pci/pci.h"
#include "qapi/error.h"
#include "qemu/range.h"
#include "qom/object.h"

#define TYPE_PROBE_CONTAINER "umbra-probe-container"
/* The end of the name tells host devices of VFIO from others. */
#define TYPE_PROBE_HOST_DEVICE "umbra-probe-host-device-vfio"

enum { INTERRUPTS_FIRST = 0xfee00000, INTERRUPTS_LAST = 0xfeefffff };

struct UmbraProbeContainer {
    UmbraVfioContainer base;

    struct UmbraProbeListener* listener;
    struct UmbraProbeHost host;
    VFIODevice* device; /* only its container is set */
    HostIOMMUDevice* host_device;
};

/* The offset in the machine's RAM, which below 4 GiB is the guest-physical address. */
static uint64_t target_of(void* host) {
    ram_addr_t offset = 0;

    memory_region_from_host(host, &offset);
    return offset;
}

static uint64_t last_iova(const struct UmbraProbeHost* host) {
    return MAKE_64BIT_MASK(0, host->address_width);
}

bool umbra_probe_host_exists(const struct UmbraProbeHost* host) {
    return host->address_width >= 1 && host->address_width <= HOST_IOMMU_DEVICE_CAP_AW_BITS_MAX &&
           host->hole_first <= last_iova(host) &&
           host->hole_bytes <= last_iova(host) - host->hole_first;
}

/* As type1 has it: a map that touches what the host cannot map is refused as a whole. */
static bool can_map(const struct UmbraProbeHost* host, uint64_t first, uint64_t last) {
    const bool interrupts = first <= INTERRUPTS_LAST && last >= INTERRUPTS_FIRST;
    const bool hole = host->hole_bytes != 0 && first < host->hole_first + host->hole_bytes &&
                      last >= host->hole_first;

    return !interrupts && !hole && last <= last_iova(host);
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
    if (!can_map(&container->host, iova, iova + (bytes - 1))) {
        container->listener->counters.refused_target++;
        return -EINVAL;
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

static const struct UmbraProbeHost* host_of(HostIOMMUDevice* device) {
    const VFIODevice* agent = device->agent;

    return &container_of(agent->bcontainer, struct UmbraProbeContainer, base)->host;
}

static int get_cap(HostIOMMUDevice* device, int cap, Error** errp) {
    return cap == HOST_IOMMU_DEVICE_CAP_AW_BITS ? host_of(device)->address_width : 0;
}

static GList* add_range(GList* list, uint64_t first, uint64_t last) {
    Range* range = g_new0(Range, 1);

    range_set_bounds(range, first, last);
    return g_list_append(list, range);
}

static GList* get_iova_ranges(HostIOMMUDevice* device) {
    const struct UmbraProbeHost* host = host_of(device);
    const uint64_t last = last_iova(host);
    GList* list = NULL;

    if (host->hole_bytes == 0) {
        return add_range(list, 0, last);
    }
    if (host->hole_first != 0) {
        list = add_range(list, 0, host->hole_first - 1);
    }
    return add_range(list, host->hole_first + host->hole_bytes, last);
}

static void host_device_class_init(ObjectClass* class, UmbraClassData* data) {
    HOST_IOMMU_DEVICE_CLASS(class)->get_cap = get_cap;
    HOST_IOMMU_DEVICE_CLASS(class)->get_iova_ranges = get_iova_ranges;
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
                                                      const struct UmbraProbeHost* host,
                                                      Error** errp) {
    struct UmbraProbeContainer* container;

    if (object_class_by_name(TYPE_PROBE_CONTAINER) == NULL) {
        error_setg(errp, "container=on needs a QEMU that was built with VFIO");
        return NULL;
    }
    container = (struct UmbraProbeContainer*)object_new(TYPE_PROBE_CONTAINER);
    container->listener = listener;
    container->host = *host;
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
