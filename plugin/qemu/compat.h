// SPDX-License-Identifier: GPL-2.0-or-later
//
// Every difference between the QEMU versions that the plugin builds against (10.0 and 10.2). It is
// the first header of every C file of the plugin, because it includes qemu/osdep.h, which QEMU
// wants first.
#ifndef UMBRA_QEMU_COMPAT_H
#define UMBRA_QEMU_COMPAT_H

#include "qemu/osdep.h"

#define UMBRA_QEMU_AT_LEAST(major, minor) \
    (QEMU_VERSION_MAJOR > (major) ||      \
     (QEMU_VERSION_MAJOR == (major) && QEMU_VERSION_MINOR >= (minor)))

#if !UMBRA_QEMU_AT_LEAST(10, 0)
#error "Umbra builds against QEMU 10.0 and 10.2; this tree is older"
#endif

// The memory API's headers moved to system/ in 10.1.
#if UMBRA_QEMU_AT_LEAST(10, 1)
#include "system/address-spaces.h"
#include "system/memory.h"
#else
#include "exec/address-spaces.h"
#include "exec/memory.h"
#endif

// The data argument of a QOM class_init function became const in 10.1.
#if UMBRA_QEMU_AT_LEAST(10, 1)
typedef const void UmbraClassData;
#else
typedef void UmbraClassData;
#endif

// x86-iommu got a property dma-translation in 10.2. Before that the unit has one of its own.
#if UMBRA_QEMU_AT_LEAST(10, 2)
#define UMBRA_INHERITS_DMA_TRANSLATION 1
#define umbra_dma_translation_wanted(x86_iommu, own) ((x86_iommu)->dma_translation)
#else
#define UMBRA_INHERITS_DMA_TRANSLATION 0
#define umbra_dma_translation_wanted(x86_iommu, own) (own)
#endif

// The user's side of a character device was called CharBackend until 10.2.
#include "chardev/char-fe.h"
#if UMBRA_QEMU_AT_LEAST(10, 2)
typedef CharFrontend UmbraCharFrontend;
#else
typedef CharBackend UmbraCharFrontend;
#endif

// VFIO's container was called VFIOContainerBase, and its functions took other arguments,
// until 10.1.
#if UMBRA_QEMU_AT_LEAST(10, 1)
#include "hw/vfio/vfio-container.h"
#include "hw/vfio/vfio-device.h"
#else
#include "hw/vfio/vfio-common.h"
#endif
#include "system/host_iommu_device.h"

#if UMBRA_QEMU_AT_LEAST(10, 2)
typedef VFIOContainer UmbraVfioContainer;
#else
typedef VFIOContainerBase UmbraVfioContainer;
#endif

// Both return 0 or a negative errno value.
static inline int umbra_vfio_dma_map(UmbraVfioContainer* container, hwaddr iova, uint64_t bytes,
                                     void* host, bool read_only) {
#if UMBRA_QEMU_AT_LEAST(10, 1)
    MemoryRegion* region = memory_region_from_host(host, &(ram_addr_t){0});

    return vfio_container_dma_map(container, iova, bytes, host, read_only, region);
#else
    return vfio_container_dma_map(container, iova, bytes, host, read_only);
#endif
}

static inline int umbra_vfio_dma_unmap(UmbraVfioContainer* container, hwaddr iova, uint64_t bytes) {
#if UMBRA_QEMU_AT_LEAST(10, 1)
    return vfio_container_dma_unmap(container, iova, bytes, NULL, false);
#else
    return vfio_container_dma_unmap(container, iova, bytes, NULL);
#endif
}

// Define functions of a container's class from functions that take the arguments which all versions
// have.
#if UMBRA_QEMU_AT_LEAST(10, 1)
#define UMBRA_DEFINE_VFIO_DMA_MAP(name, function)                                                 \
    static int name(const UmbraVfioContainer* container, hwaddr iova, uint64_t bytes, void* host, \
                    bool read_only, MemoryRegion* region) {                                       \
        return function(container, iova, bytes, host, read_only);                                 \
    }
#define UMBRA_DEFINE_VFIO_DMA_UNMAP(name, function)                                   \
    static int name(const UmbraVfioContainer* container, hwaddr iova, uint64_t bytes, \
                    IOMMUTLBEntry* entry, bool everything) {                          \
        return function(container, iova, bytes);                                      \
    }
#else
#define UMBRA_DEFINE_VFIO_DMA_MAP(name, function)                                       \
    static int name(const UmbraVfioContainer* container, hwaddr iova, ram_addr_t bytes, \
                    void* host, bool read_only) {                                       \
        return function(container, iova, bytes, host, read_only);                       \
    }
#define UMBRA_DEFINE_VFIO_DMA_UNMAP(name, function)                                     \
    static int name(const UmbraVfioContainer* container, hwaddr iova, ram_addr_t bytes, \
                    IOMMUTLBEntry* entry) {                                             \
        return function(container, iova, bytes);                                        \
    }
#endif

// NULL for a host device that is not VFIO's.
static inline UmbraVfioContainer* umbra_vfio_container_of(HostIOMMUDevice* host_device) {
    const char* type = object_get_typename(OBJECT(host_device));

    if (host_device->agent == NULL || !g_str_has_suffix(type, "-vfio")) {
        return NULL;
    }
    return ((VFIODevice*)host_device->agent)->bcontainer;
}

#endif
