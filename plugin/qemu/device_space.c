// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/device_space.h"

#include "hw/pci/pci.h"
#include "hw/pci/pci_device.h"
#include "plugin/bridge/requests.h"
#include "plugin/qemu/interrupts.h"

enum { PRIORITY_MEMORY = 0, PRIORITY_WINDOW = 1 };

uint16_t umbra_device_space_source(const UmbraDeviceSpace* space) {
    return (uint16_t)(qatomic_read(qatomic_read(&space->bus_number)) << 8 | space->devfn);
}

/* ---- Interrupt window ---- */

/* Only a write of four bytes is an interrupt (specification 3.14); the region takes larger ones as
 * well, lest QEMU cut them into four-byte writes. */
static bool is_message(hwaddr offset, unsigned size) {
    return size == 4 && offset % 4 == 0;
}

/* An access that is no interrupt. The unit logs the fault, if it translates. */
static MemTxResult refuse_dma(UmbraDeviceSpace* space, hwaddr offset, unsigned access) {
    umbra_unit_translate(space->context->unit, umbra_device_space_source(space),
                         UMBRA_INTERRUPT_WINDOW_BASE + offset, access);
    return MEMTX_ERROR;
}

static MemTxResult window_read(void* opaque, hwaddr offset, uint64_t* value, unsigned size,
                               MemTxAttrs attrs) {
    *value = ~UINT64_C(0);
    return refuse_dma(opaque, offset, UMBRA_ACCESS_READ);
}

static MemTxResult window_write(void* opaque, hwaddr offset, uint64_t value, unsigned size,
                                MemTxAttrs attrs) {
    UmbraDeviceSpace* space = opaque;

    if (!is_message(offset, size)) {
        return refuse_dma(space, offset, UMBRA_ACCESS_WRITE);
    }
    /* The source-id is that of the space, not that of `attrs`. A device model that moves data on
     * the guest's behalf leaves `attrs` empty, and must not pass for another device by doing so. */
    return umbra_interrupt_deliver(space->context->unit, umbra_device_space_source(space),
                                   UMBRA_INTERRUPT_WINDOW_BASE + offset, (uint32_t)value)
               ? MEMTX_OK
               : MEMTX_ERROR;
}

static const MemoryRegionOps window_ops = {
    .read_with_attrs = window_read,
    .write_with_attrs = window_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
    .impl = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
};

/* The shared window is in use only while interrupts are not remapped and the device's DMA is not
 * translated: then the sender of an interrupt does not matter. Any other access is refused without
 * a fault, since the window does not know whose it is. */
static MemTxResult shared_window_read(void* opaque, hwaddr offset, uint64_t* value, unsigned size,
                                      MemTxAttrs attrs) {
    *value = ~UINT64_C(0);
    return MEMTX_ERROR;
}

static MemTxResult shared_window_write(void* opaque, hwaddr offset, uint64_t value, unsigned size,
                                       MemTxAttrs attrs) {
    UmbraSpaceContext* context = opaque;

    if (!is_message(offset, size) ||
        !umbra_interrupt_deliver(context->unit, attrs.requester_id,
                                 UMBRA_INTERRUPT_WINDOW_BASE + offset, (uint32_t)value)) {
        return MEMTX_ERROR;
    }
    return MEMTX_OK;
}

static const MemoryRegionOps shared_window_ops = {
    .read_with_attrs = shared_window_read,
    .write_with_attrs = shared_window_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
    .impl = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
};

/* ---- Views ---- */

static UmbraView wanted_view(const UmbraDeviceSpace* space) {
    const UmbraContext* context = &space->cached_context;

    /* Only the shadow knows when its mappings are out of the way. */
    if (space->containers != NULL) {
        return space->shadow_mode == UMBRA_DMA_PASS_THROUGH ? UMBRA_VIEW_IDENTITY
                                                            : UMBRA_VIEW_TRANSLATED;
    }
    if (space->bus == NULL || !umbra_unit_translation_enabled(space->context->unit)) {
        return UMBRA_VIEW_IDENTITY;
    }
    return context->present && context->pass_through ? UMBRA_VIEW_IDENTITY : UMBRA_VIEW_TRANSLATED;
}

void umbra_device_space_update(UmbraDeviceSpace* space) {
    space->fixed_bus_number = qatomic_read(space->bus_number);
    if (space->bus != NULL) {
        space->cached_context =
            umbra_unit_context(space->context->unit, umbra_device_space_source(space));
    }
    space->view = wanted_view(space);

    memory_region_transaction_begin();
    memory_region_set_enabled(&space->identity, space->view == UMBRA_VIEW_IDENTITY);
    memory_region_set_enabled(MEMORY_REGION(&space->translated),
                              space->view == UMBRA_VIEW_TRANSLATED);
    memory_region_set_enabled(&space->window,
                              space->view == UMBRA_VIEW_TRANSLATED ||
                                  umbra_unit_interrupt_remapping_enabled(space->context->unit));
    memory_region_transaction_commit();
}

void umbra_space_context_init(UmbraSpaceContext* context, Object* owner, UmbraUnit* unit,
                              const UmbraUnitProperties* properties) {
    MemoryRegion* memory = get_system_memory();

    context->unit = unit;
    context->address_width = properties->address_width;
    context->caching_mode = properties->caching_mode;
    context->device_iotlb = properties->device_iotlb;
    memory_region_init(&context->identity, owner, "umbra-identity", UINT64_MAX);
    memory_region_init_alias(&context->identity_memory, owner, "umbra-identity-memory", memory, 0,
                             memory_region_size(memory));
    memory_region_init_io(&context->identity_window, owner, &shared_window_ops, context,
                          "umbra-interrupts", UMBRA_INTERRUPT_WINDOW_SIZE);
    memory_region_add_subregion_overlap(&context->identity, 0, &context->identity_memory,
                                        PRIORITY_MEMORY);
    memory_region_add_subregion_overlap(&context->identity, UMBRA_INTERRUPT_WINDOW_BASE,
                                        &context->identity_window, PRIORITY_WINDOW);
}

static UmbraDeviceSpace* space_new(Object* owner, UmbraSpaceContext* context, const char* name) {
    UmbraDeviceSpace* space = UMBRA_DEVICE_SPACE(object_new(TYPE_UMBRA_DEVICE_SPACE));
    Object* self = OBJECT(space);

    object_property_add_child(owner, "device-space[*]", self);
    object_unref(self); /* the owner holds it */

    space->context = context;
    space->bus_number = &space->fixed_bus_number;

    memory_region_init(&space->root, self, name, UINT64_MAX);
    memory_region_init_alias(&space->identity, self, "umbra-identity", &context->identity, 0,
                             memory_region_size(&context->identity));
    memory_region_init_iommu(&space->translated, sizeof(space->translated),
                             TYPE_UMBRA_TRANSLATED_REGION, self, "umbra-translated", UINT64_MAX);
    memory_region_init_io(&space->window, self, &window_ops, space, "umbra-interrupts",
                          UMBRA_INTERRUPT_WINDOW_SIZE);
    memory_region_add_subregion_overlap(&space->root, 0, &space->identity, PRIORITY_MEMORY);
    memory_region_add_subregion_overlap(&space->root, 0, MEMORY_REGION(&space->translated),
                                        PRIORITY_MEMORY);
    memory_region_add_subregion_overlap(&space->root, UMBRA_INTERRUPT_WINDOW_BASE, &space->window,
                                        PRIORITY_WINDOW);
    memory_region_set_enabled(MEMORY_REGION(&space->translated), false);
    return space;
}

UmbraDeviceSpace* umbra_device_space_new(Object* owner, UmbraSpaceContext* context, PCIBus* bus,
                                         uint8_t devfn) {
    g_autofree char* name = g_strdup_printf("umbra-%02x.%x", PCI_SLOT(devfn), PCI_FUNC(devfn));
    UmbraDeviceSpace* space = space_new(owner, context, name);

    space->bus = bus;
    space->devfn = devfn;
    if (pci_bus_is_root(bus)) {
        space->fixed_bus_number = (uint8_t)pci_bus_num(bus);
    } else {
        space->bus_number = &bus->parent_dev->config[PCI_SECONDARY_BUS];
    }
    umbra_device_space_update(space);
    address_space_init(&space->address_space, &space->root, name);
    return space;
}

UmbraDeviceSpace* umbra_platform_space_new(Object* owner, UmbraSpaceContext* context,
                                           uint16_t source) {
    UmbraDeviceSpace* space = space_new(owner, context, "umbra-platform");

    space->fixed_bus_number = source >> 8;
    space->devfn = source & 0xff;
    umbra_device_space_update(space);
    address_space_init(&space->address_space, &space->root, "umbra-platform");
    return space;
}

static void space_release(struct rcu_head* rcu) {
    object_unparent(OBJECT(container_of(rcu, UmbraDeviceSpace, rcu)));
}

void umbra_device_space_keep_number(UmbraDeviceSpace* space) {
    qatomic_set(&space->bus_number, &space->fixed_bus_number);
}

void umbra_device_space_delete(UmbraDeviceSpace* space) {
    memory_region_transaction_begin();
    memory_region_del_subregion(&space->root, &space->window);
    memory_region_del_subregion(&space->root, MEMORY_REGION(&space->translated));
    memory_region_del_subregion(&space->root, &space->identity);
    memory_region_transaction_commit();

    /* VFIO listens until its device is finalized, which is after the device's bus has gone. QEMU
     * ends itself if it destroys an address space that has a listener. */
    address_space_remove_listeners(&space->address_space);
    /* Both run after the grace period, in this order. */
    address_space_destroy(&space->address_space);
    call_rcu1(&space->rcu, space_release);
}

void umbra_device_space_register_types(void) {
    static const TypeInfo space_info = {
        .name = TYPE_UMBRA_DEVICE_SPACE,
        .parent = TYPE_OBJECT,
        .instance_size = sizeof(UmbraDeviceSpace),
    };

    type_register_static(&space_info);
}
