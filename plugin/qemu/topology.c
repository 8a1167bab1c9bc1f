// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/topology.h"

#include "hw/i386/pc.h"
#include "hw/pci-host/q35.h"
#include "hw/pci/pci.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_bus.h"
#include "plugin/bridge/requests.h"
#include "plugin/qemu/notifier_mapper.h"
#include "plugin/qemu/unmap_listeners.h"
#include "plugin/qemu/vfio_container.h"

static const UmbraScope everything = {.kind = UMBRA_SCOPE_GLOBAL};

/* PCI's function for configuration writes knows the bridge and nothing else. */
static UmbraTopology* the_topology;

uint16_t umbra_topology_ioapic_source(void) {
    return (uint16_t)(Q35_PSEUDO_BUS_PLATFORM << 8 | Q35_PSEUDO_DEVFN_IOAPIC);
}

/* ---- Spaces ---- */

typedef struct SpaceKey {
    PCIBus* bus;
    uint8_t devfn;
} SpaceKey;

static guint space_key_hash(gconstpointer key) {
    const SpaceKey* space = key;

    return g_direct_hash(space->bus) * 31 + space->devfn;
}

static gboolean space_key_equal(gconstpointer a, gconstpointer b) {
    const SpaceKey* left = a;
    const SpaceKey* right = b;

    return left->bus == right->bus && left->devfn == right->devfn;
}

static UmbraDeviceSpace* space_of(UmbraTopology* topology, PCIBus* bus, int devfn) {
    const SpaceKey key = {.bus = bus, .devfn = (uint8_t)devfn};
    UmbraDeviceSpace* space = g_hash_table_lookup(topology->spaces, &key);

    if (space == NULL) {
        space = umbra_device_space_new(topology->owner, &topology->context, bus, key.devfn);
        g_hash_table_insert(topology->spaces, g_memdup2(&key, sizeof(key)), space);
    }
    return space;
}

static AddressSpace* get_address_space(PCIBus* bus, void* opaque, int devfn) {
    return &space_of(opaque, bus, devfn)->address_space;
}

/* The space in which a device's DMA happens. If a bridge to a conventional bus is in between, that
 * is not the space of the device's own function number: all devices behind the bridge have one
 * requester id. */
static UmbraDeviceSpace* space_of_device(PCIDevice* device) {
    return container_of(pci_device_iommu_address_space(device), UmbraDeviceSpace, address_space);
}

static bool set_iommu_device(PCIBus* bus, void* opaque, int devfn, HostIOMMUDevice* host_device,
                             Error** errp) {
    PCIDevice* device = bus->devices[devfn];
    UmbraDeviceSpace* space = space_of_device(device);

    if (!umbra_vfio_container_attach(space, device, host_device, errp)) {
        return false;
    }
    /* Its listener, which was served by notifiers so far, is known to be a container's. */
    umbra_notifier_mapper_review(space);
    return true;
}

static void unset_iommu_device(PCIBus* bus, void* opaque, int devfn) {
    PCIDevice* device = bus->devices[devfn];

    umbra_vfio_container_detach(space_of_device(device), device);
}

static const PCIIOMMUOps iommu_ops = {
    .get_address_space = get_address_space,
    .set_iommu_device = set_iommu_device,
    .unset_iommu_device = unset_iommu_device,
};

/* ---- Changes of the guest's tables ---- */

static bool any_renumbered(UmbraTopology* topology) {
    GHashTableIter iterator;
    const UmbraDeviceSpace* space;

    g_hash_table_iter_init(&iterator, topology->spaces);
    while (g_hash_table_iter_next(&iterator, NULL, (gpointer*)&space)) {
        if (umbra_device_space_renumbered(space)) {
            return true;
        }
    }
    return false;
}

static void follow_bus_numbers(UmbraTopology* topology) {
    if (any_renumbered(topology)) {
        umbra_shadow_sources_changed(topology->context.unit);
        umbra_topology_contexts_changed(topology, &everything);
    }
}

void umbra_topology_update(UmbraTopology* topology) {
    GHashTableIter iterator;
    UmbraDeviceSpace* space;

    follow_bus_numbers(topology);
    /* One commit for all of them. */
    memory_region_transaction_begin();
    g_hash_table_iter_init(&iterator, topology->spaces);
    while (g_hash_table_iter_next(&iterator, NULL, (gpointer*)&space)) {
        umbra_device_space_update(space);
    }
    umbra_device_space_update(topology->ioapic_space);
    memory_region_transaction_commit();
}

static bool scope_has_source(const UmbraScope* scope, uint16_t source) {
    return scope->kind != UMBRA_SCOPE_DEVICE ||
           ((scope->source ^ source) & ~(uint16_t)scope->function_mask) == 0;
}

void umbra_topology_contexts_changed(UmbraTopology* topology, const UmbraScope* scope) {
    GHashTableIter iterator;
    UmbraDeviceSpace* space;

    memory_region_transaction_begin();
    g_hash_table_iter_init(&iterator, topology->spaces);
    while (g_hash_table_iter_next(&iterator, NULL, (gpointer*)&space)) {
        /* A domain-selective invalidation concerns devices that were in the domain before, and the
         * tables only say which devices are in it now: all devices are looked at. */
        if (scope_has_source(scope, umbra_device_space_source(space))) {
            umbra_device_space_update(space);
            umbra_notifier_mapper_review(space);
            umbra_unmap_listeners_notify(space, IOMMU_NOTIFIER_UNMAP, 0, UINT64_MAX);
        }
    }
    memory_region_transaction_commit();
}

/* A context that was not present need not be invalidated before it is used if caching mode is off:
 * then the entry in memory counts too. */
static bool scope_has_domain(const UmbraTopology* topology, const UmbraScope* scope,
                             const UmbraDeviceSpace* space) {
    const UmbraContext* cached = &space->cached_context;
    UmbraContext now;

    if (scope->kind == UMBRA_SCOPE_GLOBAL) {
        return true;
    }
    if (cached->present && cached->domain == scope->domain) {
        return true;
    }
    now = umbra_unit_context(topology->context.unit, umbra_device_space_source(space));
    return now.present && now.domain == scope->domain;
}

void umbra_topology_iotlb_changed(UmbraTopology* topology, const UmbraScope* scope) {
    const uint64_t last = scope->kind == UMBRA_SCOPE_PAGES ? scope->last : UINT64_MAX;
    GHashTableIter iterator;
    UmbraDeviceSpace* space;

    /* The common case, and the one in which a guest invalidates often. */
    if (topology->context.unmap_listeners == 0) {
        return;
    }
    g_hash_table_iter_init(&iterator, topology->spaces);
    while (g_hash_table_iter_next(&iterator, NULL, (gpointer*)&space)) {
        if ((space->notifier_flags & IOMMU_NOTIFIER_UNMAP) && umbra_unmap_listeners_any(space) &&
            scope_has_domain(topology, scope, space)) {
            umbra_unmap_listeners_notify(space, IOMMU_NOTIFIER_UNMAP, scope->first, last);
        }
    }
}

void umbra_topology_device_tlb_changed(UmbraTopology* topology, uint16_t source, uint64_t first,
                                       uint64_t last) {
    GHashTableIter iterator;
    UmbraDeviceSpace* space;

    g_hash_table_iter_init(&iterator, topology->spaces);
    while (g_hash_table_iter_next(&iterator, NULL, (gpointer*)&space)) {
        if (umbra_device_space_source(space) == source) {
            umbra_unmap_listeners_notify(space, IOMMU_NOTIFIER_DEVIOTLB_UNMAP, first, last);
        }
    }
}

/* ---- Bridges ---- */

static PCIConfigWriteFunc* config_write_of_class(PCIDevice* device) {
    PCIConfigWriteFunc* of_class = PCI_DEVICE_GET_CLASS(device)->config_write;

    return of_class != NULL ? of_class : pci_default_write_config;
}

/* Before the guest's write returns, so before any DMA under the new number. A write to a bridge can
 * also reset the bridges below it, which takes their numbers away. */
static void bridge_config_write(PCIDevice* bridge, uint32_t address, uint32_t value, int length) {
    config_write_of_class(bridge)(bridge, address, value, length);
    follow_bus_numbers(the_topology);
}

static void device_realized(DeviceListener* listener, DeviceState* device) {
    PCIDevice* bridge = (PCIDevice*)object_dynamic_cast(OBJECT(device), TYPE_PCI_BRIDGE);

    if (bridge != NULL && bridge->config_write == config_write_of_class(bridge)) {
        bridge->config_write = bridge_config_write;
    }
}

/* The bridge's configuration space is gone already. */
static void delete_space(UmbraDeviceSpace* space) {
    umbra_device_space_keep_number(space);
    umbra_vfio_container_detach_all(space);
    umbra_device_space_delete(space);
}

/* A bridge that is unplugged takes its bus along, and the spaces of the functions that were on it;
 * the memory of the bus may come back as another bus. */
static void device_unrealized(DeviceListener* listener, DeviceState* device) {
    UmbraTopology* topology = container_of(listener, UmbraTopology, device_listener);
    GHashTableIter iterator;
    UmbraDeviceSpace* space;

    if (!object_dynamic_cast(OBJECT(device), TYPE_PCI_BRIDGE)) {
        return;
    }
    g_hash_table_iter_init(&iterator, topology->spaces);
    while (g_hash_table_iter_next(&iterator, NULL, (gpointer*)&space)) {
        if (DEVICE(space->bus->parent_dev) == device) {
            g_hash_table_iter_remove(&iterator);
            delete_space(space);
        }
    }
}

void umbra_topology_start(UmbraTopology* topology, Object* owner, UmbraUnit* unit,
                          const UmbraUnitProperties* properties) {
    the_topology = topology;
    topology->owner = owner;
    topology->spaces = g_hash_table_new_full(space_key_hash, space_key_equal, g_free, NULL);
    umbra_space_context_init(&topology->context, owner, unit, properties);

    topology->ioapic_space =
        umbra_platform_space_new(owner, &topology->context, umbra_topology_ioapic_source());
    X86_MACHINE(qdev_get_machine())->ioapic_as = &topology->ioapic_space->address_space;

    pci_setup_iommu(PC_MACHINE(qdev_get_machine())->pcibus, &iommu_ops, topology);
    topology->device_listener.realize = device_realized;
    topology->device_listener.unrealize = device_unrealized;
    device_listener_register(&topology->device_listener);
}
