// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/viommu.h"

#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "hw/i386/pc.h"
#include "hw/i386/x86-iommu.h"
#include "hw/pci-host/q35.h"
#include "hw/pci/pci.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_bus.h"
#include "hw/qdev-properties.h"
#include "kvm/kvm_i386.h"
#include "migration/vmstate.h"
#include "plugin/bridge/platform.h"
#include "plugin/bridge/requests.h"
#include "plugin/bridge/shadow.h"
#include "plugin/bridge/statistics.h"
#include "plugin/bridge/unit.h"
#include "plugin/qemu/device_space.h"
#include "plugin/qemu/dmar_table.h"
#include "plugin/qemu/interrupts.h"
#include "plugin/qemu/irqchip_option.h"
#include "plugin/qemu/map_listeners.h"
#include "plugin/qemu/ram_listener.h"
#include "plugin/qemu/shadow_port.h"
#include "plugin/qemu/stats_output.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qemu/error-report.h"
#include "qemu/timer.h"
#include "qobject/qjson.h"
#include "qobject/qobject.h"
#include "system/kvm.h"
#include "system/runstate.h"
#include "system/system.h"

/* Where chipsets of this kind have their unit, and where a guest's firmware leaves room for it. */
#define REGISTER_BASE 0xfed90000ULL

#define PLATFORM_SOURCE(bus, devfn) ((uint16_t)((bus) << 8 | (devfn)))
#define IOAPIC_SOURCE PLATFORM_SOURCE(Q35_PSEUDO_BUS_PLATFORM, Q35_PSEUDO_DEVFN_IOAPIC)

OBJECT_DECLARE_TYPE(UmbraViommu, UmbraViommuClass, UMBRA_VIOMMU)

struct UmbraViommuClass {
    X86IOMMUClass parent;
    DeviceRealize parent_realize;
};

struct UmbraViommu {
    X86IOMMUState parent;

    /* Properties; the others are x86-iommu's. */
    bool caching_mode;
    bool snoop_control;
    uint8_t address_width;
    OnOffAuto extended_interrupt_mode;
    bool coalesce;
    char* on_map_error;
    uint64_t max_mappings;
    uint32_t max_tables;
    uint32_t slice_us;
    UmbraStatsOutput stats;

    UmbraUnit* unit;
    MemoryRegion registers;
    UmbraRamListener ram;
    UmbraSpaceContext space_context;
    GHashTable* spaces; /* SpaceKey to UmbraDeviceSpace; owns the keys */
    UmbraDeviceSpace* ioapic_space;
    DeviceListener device_listener;
    Notifier machine_done;
    QEMUTimer* work;
    UmbraSavedState saved; /* only while state is saved or loaded */
};

/* ---- Properties ---- */

typedef struct PropertyHelp {
    const char* name;
    const char* values;
    const char* default_value;
    const char* description;
} PropertyHelp;

static const PropertyHelp property_help[] = {
    {"caching-mode", "on|off", "on",
     "Guest must invalidate after every change of its tables (CAP.CM); pass-through needs it"},
    {"aw-bits", "39|48", "48",
     "Width of I/O virtual addresses: 39 has three-level tables, 48 four-level ones as well"},
    {"intremap", "on|off|auto", "auto",
     "Remap interrupts; auto is on unless KVM has the whole interrupt controller "
     "(kernel-irqchip=on)"},
    {"eim", "on|off|auto", "auto",
     "32-bit APIC ids in remapped interrupts (x2APIC); auto is on if intremap and the accelerator "
     "allow it"},
    {"pt", "on|off", "on",
     "Guest may let a device's DMA pass untranslated (ECAP.PT), as with iommu=pt"},
    {"device-iotlb", "on|off", "off",
     "Devices may have translation caches of their own (ATS), such as vhost with ats=on"},
    {"snoop-control", "on|off", "off", "Guest may set the snoop bit in its tables (ECAP.SC)"},
    {"coalesce", "on|off", "on",
     "Map what is contiguous and named by one page-selective invalidation in one host call; a "
     "later unmap of a part then splits it"},
    {"on-map-error", "report|stop", "report",
     "When the host refuses a mapping: tell the operator and retry, or stop the machine as well "
     "until "
     "cont, which retries"},
    {"max-mappings", "NUMBER", "4194304",
     "Budget against hostile tables: leaf entries of one guest domain"},
    {"max-tables", "NUMBER", "32768",
     "Budget against hostile tables: table pages of one guest domain; twice as many in all"},
    {"slice-us", "MICROSECONDS", "10000",
     "Longest work on invalidations in one go; then the machine goes on, and the guest waits for "
     "the "
     "rest. 0 is no limit"},
    {"stats-file", "PATH", "none",
     "Write the counters there when QEMU exits, for umbra-stat; stats-write does it at once"},
    {"stats-chardev", "ID", "none",
     "Send the counters to whoever reads this -chardev, at an interval, for umbra-stat"},
    {"stats-interval", "NUMBER", "1000", "Milliseconds between two messages over stats-chardev"},
};

void umbra_viommu_print_help(FILE* out) {
    fprintf(out,
            "Umbra: a virtual Intel VT-d unit\n\n"
            "  -M q35 -plugin file=./umbra.so -device " TYPE_UMBRA_VIOMMU
            "[,property=value...]\n\n"
            "Name it before the devices that are to be behind it. Properties:\n\n");
    for (size_t i = 0; i < ARRAY_SIZE(property_help); i++) {
        const PropertyHelp* help = &property_help[i];

        fprintf(out, "  %-14s %-12s (default: %s)\n      %s\n", help->name, help->values,
                help->default_value, help->description);
    }
    fprintf(
        out,
        "\nWhile the machine runs (QMP; the path ends in the device's id):\n\n"
        "  qom-get /machine/peripheral/ID statistics        counters, as one object\n"
        "  qom-set /machine/peripheral/ID statistics-clear  true sets them to 0\n"
        "  qom-set /machine/peripheral/ID stats-write       true writes them to stats-file\n"
        "  qom-get /machine/peripheral/ID verify            guest tables beside host mappings\n");
}

/* ---- Work that takes long ---- */

/* A timer and no bottom half: the main loop has to sleep in between, or no other thread would get
 * the lock. */
enum { WORK_PAUSE_MS = 1 };

static void schedule_work(UmbraViommu* self) {
    /* A pause that has begun is not begun again: a guest that goes on writing to registers would
     * put the work off for ever. */
    if (umbra_unit_has_work(self->unit) && !timer_pending(self->work)) {
        timer_mod(self->work, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + WORK_PAUSE_MS);
    }
}

static void request_stop(void) {
    qemu_system_vmstop_request_prepare();
    qemu_system_vmstop_request(RUN_STATE_IO_ERROR);
}

static void do_work(void* opaque) {
    UmbraViommu* self = opaque;

    /* By now the main loop has stopped the machine, unless the monitor's "cont" came first, which
     * takes the request back. */
    if (umbra_unit_machine_stopping(self->unit) && runstate_is_running()) {
        request_stop();
    }
    umbra_unit_work(self->unit);
    schedule_work(self);
}

static void finish_work(UmbraViommu* self) {
    while (umbra_unit_has_work(self->unit)) {
        umbra_unit_work(self->unit);
    }
}

/* ---- Registers ---- */

static uint64_t registers_read(void* opaque, hwaddr offset, unsigned size) {
    const UmbraViommu* self = opaque;

    return umbra_unit_mmio_read(self->unit, (uint32_t)offset, size);
}

static void registers_write(void* opaque, hwaddr offset, uint64_t value, unsigned size) {
    UmbraViommu* self = opaque;

    umbra_unit_mmio_write(self->unit, (uint32_t)offset, value, size);
    schedule_work(self);
}

static const MemoryRegionOps registers_ops = {
    .read = registers_read,
    .write = registers_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = {.min_access_size = 4, .max_access_size = 8},
    .impl = {.min_access_size = 4, .max_access_size = 8},
};

/* ---- Devices behind the unit ---- */

/* By bus and not by bus number: the guest assigns that later, and may assign it anew. */
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

static UmbraDeviceSpace* space_of(UmbraViommu* self, PCIBus* bus, int devfn) {
    const SpaceKey key = {.bus = bus, .devfn = (uint8_t)devfn};
    UmbraDeviceSpace* space = g_hash_table_lookup(self->spaces, &key);

    if (space == NULL) {
        space = umbra_device_space_new(OBJECT(self), &self->space_context, bus, key.devfn);
        g_hash_table_insert(self->spaces, g_memdup2(&key, sizeof(key)), space);
    }
    return space;
}

static AddressSpace* get_address_space(PCIBus* bus, void* opaque, int devfn) {
    return &space_of(opaque, bus, devfn)->address_space;
}

/* The space in which a device's DMA happens. It is not that of the device's own function number if
 * a bridge to a conventional bus is in between: then all behind the bridge have one requester id.
 */
static UmbraDeviceSpace* space_of_device(PCIDevice* device) {
    return container_of(pci_device_iommu_address_space(device), UmbraDeviceSpace, address_space);
}

static bool set_iommu_device(PCIBus* bus, void* opaque, int devfn, HostIOMMUDevice* host_device,
                             Error** errp) {
    PCIDevice* device = bus->devices[devfn];

    return umbra_shadow_port_attach(space_of_device(device), device, host_device, errp);
}

static void unset_iommu_device(PCIBus* bus, void* opaque, int devfn) {
    PCIDevice* device = bus->devices[devfn];

    umbra_shadow_port_detach(space_of_device(device), device);
}

static const PCIIOMMUOps iommu_ops = {
    .get_address_space = get_address_space,
    .set_iommu_device = set_iommu_device,
    .unset_iommu_device = unset_iommu_device,
};

static void platform_contexts_changed(void* opaque, const UmbraScope* scope);

static bool any_renumbered(UmbraViommu* self) {
    GHashTableIter iterator;
    const UmbraDeviceSpace* space;

    g_hash_table_iter_init(&iterator, self->spaces);
    while (g_hash_table_iter_next(&iterator, NULL, (gpointer*)&space)) {
        if (umbra_device_space_renumbered(space)) {
            return true;
        }
    }
    return false;
}

/* With another bus number a device has another context entry, and no invalidation says so. */
static void follow_bus_numbers(UmbraViommu* self) {
    const UmbraScope everything = {.kind = UMBRA_SCOPE_GLOBAL};

    if (any_renumbered(self)) {
        umbra_shadow_sources_changed(self->unit);
        platform_contexts_changed(self, &everything);
    }
}

static PCIConfigWriteFunc* config_write_of_class(PCIDevice* device) {
    PCIConfigWriteFunc* of_class = PCI_DEVICE_GET_CLASS(device)->config_write;

    return of_class != NULL ? of_class : pci_default_write_config;
}

/* Before the guest's write returns, so before any DMA under the new number. A write to a bridge can
 * reset those below it as well, which takes their numbers away. */
static void bridge_config_write(PCIDevice* bridge, uint32_t address, uint32_t value, int length) {
    config_write_of_class(bridge)(bridge, address, value, length);
    follow_bus_numbers(UMBRA_VIOMMU(x86_iommu_get_default()));
}

static void device_realized(DeviceListener* listener, DeviceState* device) {
    PCIDevice* bridge = (PCIDevice*)object_dynamic_cast(OBJECT(device), TYPE_PCI_BRIDGE);

    if (bridge != NULL && bridge->config_write == config_write_of_class(bridge)) {
        bridge->config_write = bridge_config_write;
    }
}

/* A bridge that is unplugged takes its bus along, and the spaces of the functions that were on it;
 * its memory may come back as another bus. */
static void device_unrealized(DeviceListener* listener, DeviceState* device) {
    UmbraViommu* self = container_of(listener, UmbraViommu, device_listener);
    GHashTableIter iterator;
    UmbraDeviceSpace* space;

    if (!object_dynamic_cast(OBJECT(device), TYPE_PCI_BRIDGE)) {
        return;
    }
    g_hash_table_iter_init(&iterator, self->spaces);
    while (g_hash_table_iter_next(&iterator, NULL, (gpointer*)&space)) {
        if (DEVICE(space->bus->parent_dev) == device) {
            g_hash_table_iter_remove(&iterator);
            umbra_device_space_delete(space);
        }
    }
}

/* Asked about every device that the command line or the monitor is about to make. None is hidden;
 * this is where one can be refused. */
static bool refuse_map_listener(DeviceListener* listener, const QDict* options, bool from_json,
                                Error** errp) {
    const UmbraViommu* self = container_of(listener, UmbraViommu, device_listener);

    if (!self->caching_mode) {
        umbra_check_options_without_caching_mode(options, errp);
    }
    return false;
}

/* ---- What the unit tells the platform ---- */

static bool platform_write_memory(void* opaque, uint64_t address, const void* from, size_t size) {
    return address_space_write(&address_space_memory, address, MEMTXATTRS_UNSPECIFIED, from,
                               size) == MEMTX_OK;
}

static void platform_send_message(void* opaque, uint64_t address, uint32_t data) {
    umbra_interrupt_send(address, data);
}

static void update_all_spaces(UmbraViommu* self) {
    GHashTableIter iterator;
    UmbraDeviceSpace* space;

    follow_bus_numbers(self);
    /* One commit for all of them. */
    memory_region_transaction_begin();
    g_hash_table_iter_init(&iterator, self->spaces);
    while (g_hash_table_iter_next(&iterator, NULL, (gpointer*)&space)) {
        umbra_device_space_update(space);
    }
    umbra_device_space_update(self->ioapic_space);
    memory_region_transaction_commit();
}

static bool scope_has_source(const UmbraScope* scope, uint16_t source) {
    return scope->kind != UMBRA_SCOPE_DEVICE ||
           ((scope->source ^ source) & ~(uint16_t)scope->function_mask) == 0;
}

static void platform_contexts_changed(void* opaque, const UmbraScope* scope) {
    UmbraViommu* self = opaque;
    GHashTableIter iterator;
    UmbraDeviceSpace* space;

    memory_region_transaction_begin();
    g_hash_table_iter_init(&iterator, self->spaces);
    while (g_hash_table_iter_next(&iterator, NULL, (gpointer*)&space)) {
        /* A domain-selective one concerns devices that were in the domain, and only the tables of
         * now can be read: look at all. */
        if (scope_has_source(scope, umbra_device_space_source(space))) {
            umbra_device_space_update(space);
            umbra_shadow_port_review(space);
            umbra_device_space_notify_unmap(space, IOMMU_NOTIFIER_UNMAP, 0, UINT64_MAX);
        }
    }
    memory_region_transaction_commit();
}

static void platform_translation_changed(void* opaque) {
    const UmbraScope everything = {.kind = UMBRA_SCOPE_GLOBAL};

    platform_contexts_changed(opaque, &everything);
}

static bool scope_has_domain(const UmbraViommu* self, const UmbraScope* scope,
                             const UmbraDeviceSpace* space) {
    UmbraContext context;

    if (scope->kind == UMBRA_SCOPE_GLOBAL) {
        return true;
    }
    context = umbra_unit_context(self->unit, umbra_device_space_source(space));
    return context.present && context.domain == scope->domain;
}

static void platform_iotlb_changed(void* opaque, const UmbraScope* scope) {
    UmbraViommu* self = opaque;
    const uint64_t last = scope->kind == UMBRA_SCOPE_PAGES ? scope->last : UINT64_MAX;
    GHashTableIter iterator;
    UmbraDeviceSpace* space;

    /* The common case, and the one in which a guest invalidates often. */
    if (self->space_context.unmap_listeners == 0) {
        return;
    }
    g_hash_table_iter_init(&iterator, self->spaces);
    while (g_hash_table_iter_next(&iterator, NULL, (gpointer*)&space)) {
        if ((space->notifier_flags & IOMMU_NOTIFIER_UNMAP) &&
            umbra_device_space_hears_unmaps_only(space) && scope_has_domain(self, scope, space)) {
            umbra_device_space_notify_unmap(space, IOMMU_NOTIFIER_UNMAP, scope->first, last);
        }
    }
}

static void platform_device_tlb_changed(void* opaque, uint16_t source, uint64_t first,
                                        uint64_t last) {
    UmbraViommu* self = opaque;
    GHashTableIter iterator;
    UmbraDeviceSpace* space;

    g_hash_table_iter_init(&iterator, self->spaces);
    while (g_hash_table_iter_next(&iterator, NULL, (gpointer*)&space)) {
        if (umbra_device_space_source(space) == source) {
            umbra_device_space_notify_unmap(space, IOMMU_NOTIFIER_DEVIOTLB_UNMAP, first, last);
        }
    }
}

static void platform_report(void* opaque, bool trouble, const char* sentence) {
    if (trouble) {
        error_report(TYPE_UMBRA_VIOMMU ": %s", sentence);
    } else {
        info_report(TYPE_UMBRA_VIOMMU ": %s", sentence);
    }
}

static bool platform_stop_machine(void* opaque) {
    if (!runstate_is_running()) {
        return false;
    }
    request_stop();
    return true;
}

static void platform_interrupt_entries_changed(void* opaque) {
    x86_iommu_iec_notify_all(X86_IOMMU_DEVICE(opaque), true, 0, 0);
}

static void platform_interrupt_remapping_changed(void* opaque) {
    update_all_spaces(opaque);
    platform_interrupt_entries_changed(opaque);
}

/* KVM asks for the outcome when it makes or refreshes a route (an irqfd, or a pin of the I/O APIC,
 * which comes without a source-id). */
static int int_remap(X86IOMMUState* iommu, MSIMessage* message, MSIMessage* remapped,
                     uint16_t source) {
    UmbraViommu* self = UMBRA_VIOMMU(iommu);

    if (source == X86_IOMMU_SID_INVALID) {
        source = IOAPIC_SOURCE;
    }
    return umbra_interrupt_route(self->unit, source, message, remapped) ? 0 : -EINVAL;
}

/* ---- Life ---- */

/* Without KVM the option has no effect, but it contradicts intremap=on all the same: with KVM the
 * same command line would not start. */
static bool whole_kernel_irqchip(void) {
    return kvm_enabled() ? kvm_irqchip_in_kernel() && !kvm_irqchip_is_split()
                         : umbra_whole_kernel_irqchip_wanted();
}

/* What QEMU's x86-iommu would refuse in fewer words, or not at all. */
static bool check_machine(UmbraViommu* self, Error** errp) {
    const X86IOMMUState* iommu = X86_IOMMU_DEVICE(self);
    bool several = false;

    if (!object_resolve_path_type("", TYPE_Q35_HOST_DEVICE, NULL)) {
        error_setg(errp, TYPE_UMBRA_VIOMMU " needs the q35 machine: start QEMU with -M q35");
        return false;
    }
    if (iommu->intr_supported == ON_OFF_AUTO_ON && whole_kernel_irqchip()) {
        error_setg(errp,
                   "intremap=on cannot work with kernel-irqchip=on, which gives KVM the whole "
                   "interrupt controller: start QEMU with -M q35,kernel-irqchip=split, "
                   "or " TYPE_UMBRA_VIOMMU " with intremap=off");
        return false;
    }
    /* It chose its view of memory when it was made, and that is not the unit's. */
    if (object_resolve_path_type("", "vfio-pci", &several) != NULL || several) {
        error_setg(errp, "-device " TYPE_UMBRA_VIOMMU " must come before every -device vfio-pci");
        return false;
    }
    if (!umbra_dma_translation_wanted(iommu)) {
        error_setg(errp, TYPE_UMBRA_VIOMMU " always translates: leave dma-translation=off out");
        return false;
    }
    return true;
}

/* Sets *enabled to what the property and the platform amount to. */
static bool decide_extended_interrupt_mode(UmbraViommu* self, bool* enabled, Error** errp) {
    const bool remapping = x86_iommu_ir_supported(X86_IOMMU_DEVICE(self));
    /* 32-bit destinations need an interrupt controller that takes them: QEMU's own under TCG, or
     * KVM's if it can be switched to that format. */
    const bool possible = kvm_enabled() ? kvm_irqchip_is_split() && kvm_enable_x2apic() : true;

    *enabled = false;
    if (self->extended_interrupt_mode == ON_OFF_AUTO_ON) {
        if (!remapping) {
            error_setg(errp, "eim=on needs intremap=on");
            return false;
        }
        if (!possible) {
            error_setg(errp,
                       "eim=on needs KVM with x2APIC support and -M q35,kernel-irqchip=split; "
                       "or set eim=off");
            return false;
        }
    }
    *enabled = self->extended_interrupt_mode != ON_OFF_AUTO_OFF && remapping && possible;
    return true;
}

/* Width of guest-physical addresses: that of the guest's CPUs. */
static unsigned guest_address_width(void) {
    enum { NARROWEST = 36, WIDEST = 52 };
    unsigned width = WIDEST;

    if (first_cpu != NULL && object_property_find(OBJECT(first_cpu), "phys-bits")) {
        width = (unsigned)object_property_get_uint(OBJECT(first_cpu), "phys-bits", &error_abort);
    }
    return MIN(MAX(width, NARROWEST), WIDEST);
}

static bool collect_properties(UmbraViommu* self, UmbraUnitProperties* properties, Error** errp) {
    const X86IOMMUState* iommu = X86_IOMMU_DEVICE(self);
    const char* problem;

    if (self->address_width != 39 && self->address_width != 48) {
        error_setg(errp, "aw-bits=%u is not supported: use 39 or 48", self->address_width);
        return false;
    }
    *properties = (UmbraUnitProperties){
        .address_width = self->address_width,
        .host_address_width = guest_address_width(),
        .caching_mode = self->caching_mode,
        .interrupt_remapping = x86_iommu_ir_supported(X86_IOMMU_DEVICE(self)),
        .pass_through = iommu->pt_supported,
        .device_iotlb = iommu->dt_supported,
        .snoop_control = self->snoop_control,
    };
    if (!decide_extended_interrupt_mode(self, &properties->extended_interrupt_mode, errp)) {
        return false;
    }
    problem = umbra_unit_properties_error(properties);
    if (problem != NULL) {
        error_setg(errp, "%s", problem);
        return false;
    }
    return true;
}

static bool collect_shadow_options(UmbraViommu* self, UmbraShadowOptions* options, Error** errp) {
    const char* on_map_error = self->on_map_error != NULL ? self->on_map_error : "report";

    if (!g_str_equal(on_map_error, "report") && !g_str_equal(on_map_error, "stop")) {
        error_setg(errp, "on-map-error=%s: use report or stop", on_map_error);
        return false;
    }
    if (self->max_mappings == 0 || self->max_tables == 0) {
        error_setg(errp, "max-mappings and max-tables must be at least 1");
        return false;
    }
    *options = (UmbraShadowOptions){
        .coalesce = self->coalesce,
        .stop_on_map_error = g_str_equal(on_map_error, "stop"),
        .max_mappings = self->max_mappings,
        .max_tables = self->max_tables,
        .slice_us = self->slice_us,
    };
    return true;
}

/* Bridges get their bus numbers back after the unit its tables when state is loaded, and what view
 * a device behind one has depends on both. When the machine goes on, everything is in place. */
static void run_state_changed(void* opaque, bool running, RunState state) {
    UmbraViommu* self = opaque;

    if (running) {
        update_all_spaces(self);
        umbra_unit_machine_goes_on(self->unit);
        schedule_work(self);
    } else {
        umbra_unit_machine_stopped(self->unit);
        /* A machine that stands still does not write to its memory, which may be on its way to
         * somewhere else: what the guest waits for is completed before. */
        finish_work(self);
    }
}

/* The DMAR table says that everything is behind the unit, and a guest would set up translations for
 * devices that do not use them. */
static void check_host_bridges(void) {
    PCIBus* root_bus = PC_MACHINE(qdev_get_machine())->pcibus;
    PCIBus* bus;

    if (pci_bus_bypass_iommu(root_bus)) {
        error_report(TYPE_UMBRA_VIOMMU
                     ": devices of the main bus bypass it: leave "
                     "-M default_bus_bypass_iommu=on out");
        exit(EXIT_FAILURE);
    }
    QLIST_FOREACH(bus, &root_bus->child, sibling) {
        if (pci_bus_is_root(bus) && pci_bus_bypass_iommu(bus)) {
            error_report(TYPE_UMBRA_VIOMMU
                         ": devices of bus '%s' bypass it: leave bypass_iommu=on "
                         "out where that bus is made",
                         BUS(bus)->name);
            exit(EXIT_FAILURE);
        }
    }
}

/* Devices that no option of their own made what they are, but -global or a default. */
static void check_map_listeners(const UmbraViommu* self) {
    Error* error = NULL;

    if (!self->caching_mode && !umbra_check_devices_without_caching_mode(&error)) {
        error_report_err(error);
        exit(EXIT_FAILURE);
    }
}

static void check_when_complete(Notifier* notifier, void* unused) {
    check_host_bridges();
    check_map_listeners(container_of(notifier, UmbraViommu, machine_done));
}

static void connect_devices(UmbraViommu* self, const UmbraUnitProperties* properties) {
    PCIBus* root_bus = PC_MACHINE(qdev_get_machine())->pcibus;

    self->spaces = g_hash_table_new_full(space_key_hash, space_key_equal, g_free, NULL);
    self->space_context.address_width = properties->address_width;
    self->space_context.caching_mode = properties->caching_mode;
    self->space_context.device_iotlb = properties->device_iotlb;
    umbra_space_context_init(&self->space_context, OBJECT(self), self->unit);

    self->ioapic_space =
        umbra_platform_space_new(OBJECT(self), &self->space_context, IOAPIC_SOURCE);
    X86_MACHINE(qdev_get_machine())->ioapic_as = &self->ioapic_space->address_space;

    pci_setup_iommu(root_bus, &iommu_ops, self);
    self->device_listener.realize = device_realized;
    self->device_listener.unrealize = device_unrealized;
    self->device_listener.hide_device = refuse_map_listener;
    device_listener_register(&self->device_listener);
    self->machine_done.notify = check_when_complete;
    qemu_add_machine_init_done_notifier(&self->machine_done);
}

/* What the operator calls it. */
static const char* unit_name(const UmbraViommu* self) {
    const char* id = DEVICE(self)->id;

    return id != NULL ? id : TYPE_UMBRA_VIOMMU;
}

static void unit_realize(DeviceState* device, Error** errp) {
    UmbraViommu* self = UMBRA_VIOMMU(device);
    const UmbraPlatform platform = {
        .opaque = self,
        .write_memory = platform_write_memory,
        .send_message = platform_send_message,
        .translation_changed = platform_translation_changed,
        .contexts_changed = platform_contexts_changed,
        .iotlb_changed = platform_iotlb_changed,
        .device_tlb_changed = platform_device_tlb_changed,
        .interrupt_remapping_changed = platform_interrupt_remapping_changed,
        .interrupt_entries_changed = platform_interrupt_entries_changed,
        .report = platform_report,
        .stop_machine = platform_stop_machine,
    };
    UmbraShadowOptions options;
    UmbraUnitProperties properties;
    UmbraDmarTable dmar;

    if (!collect_properties(self, &properties, errp) ||
        !collect_shadow_options(self, &options, errp)) {
        return;
    }
    dmar = (UmbraDmarTable){
        .register_base = REGISTER_BASE,
        .host_address_width = properties.host_address_width,
        .interrupt_remapping = properties.interrupt_remapping,
        .address_translation_services = properties.device_iotlb,
    };
    if (!umbra_dmar_table_add(&dmar, errp)) {
        return;
    }

    self->unit = umbra_unit_new(&properties, &options, &platform);
    if (!umbra_stats_output_start(&self->stats, self->unit, unit_name(self), errp)) {
        umbra_unit_free(self->unit);
        self->unit = NULL;
        return;
    }
    self->work = timer_new_ms(QEMU_CLOCK_REALTIME, do_work, self);
    umbra_ram_listener_start(&self->ram, self->unit);

    memory_region_init_io(&self->registers, OBJECT(self), &registers_ops, self, TYPE_UMBRA_VIOMMU,
                          UMBRA_REGISTER_SPACE);
    sysbus_init_mmio(SYS_BUS_DEVICE(self), &self->registers);
    sysbus_mmio_map(SYS_BUS_DEVICE(self), 0, REGISTER_BASE);

    connect_devices(self, &properties);
    qemu_add_vm_change_state_handler(run_state_changed, self);
}

static void viommu_realize(DeviceState* device, Error** errp) {
    UmbraViommuClass* self_class = UMBRA_VIOMMU_GET_CLASS(device);

    if (check_machine(UMBRA_VIOMMU(device), errp)) {
        self_class->parent_realize(device, errp);
    }
}

/* In the last phase, when every device has stopped its DMA. */
static void reset_exit(Object* object, ResetType type) {
    umbra_unit_reset(UMBRA_VIOMMU(object)->unit);
}

/* ---- Migration ---- */

static int pre_save(void* opaque) {
    UmbraViommu* self = opaque;

    umbra_unit_save(self->unit, &self->saved);
    return 0;
}

static int post_load(void* opaque, int version) {
    UmbraViommu* self = opaque;

    if (!umbra_unit_restore(self->unit, &self->saved)) {
        error_report(TYPE_UMBRA_VIOMMU
                     ": the saved state is not that of a unit with these "
                     "properties; start QEMU with those of the source");
        return -EINVAL;
    }
    return 0;
}

static const VMStateDescription viommu_vmstate = {
    .name = TYPE_UMBRA_VIOMMU,
    .version_id = 1,
    .minimum_version_id = 1,
    .priority = MIG_PRI_IOMMU,
    .pre_save = pre_save,
    .post_load = post_load,
    .fields =
        (const VMStateField[]){
            VMSTATE_UINT32(saved.version, UmbraViommu),
            VMSTATE_UINT32(saved.next_fault_record, UmbraViommu),
            VMSTATE_UINT64(saved.root_table, UmbraViommu),
            VMSTATE_UINT64(saved.interrupt_table, UmbraViommu),
            VMSTATE_UINT8_ARRAY(saved.registers, UmbraViommu, UMBRA_SAVED_REGISTER_BYTES),
            VMSTATE_END_OF_LIST(),
        },
};

/* ---- Statistics ---- */

/* `json` is the caller's no more. */
static void visit_json(Visitor* visitor, const char* name, char* json, Error** errp) {
    QObject* object = qobject_from_json(json, &error_abort);

    umbra_string_free(json);
    visit_type_any(visitor, name, &object, errp);
    qobject_unref(object);
}

static void get_statistics(Object* object, Visitor* visitor, const char* name, void* opaque,
                           Error** errp) {
    UmbraViommu* self = UMBRA_VIOMMU(object);
    const UmbraSnapshotStamp stamp = {.unit = unit_name(self), .dropped = self->stats.dropped};

    if (self->unit == NULL) {
        error_setg(errp, "the device is not realized");
        return;
    }

    visit_json(visitor, name, umbra_unit_statistics(self->unit, &stamp), errp);
}

static void get_verify(Object* object, Visitor* visitor, const char* name, void* opaque,
                       Error** errp) {
    UmbraViommu* self = UMBRA_VIOMMU(object);

    if (self->unit == NULL) {
        error_setg(errp, "the device is not realized");
        return;
    }
    visit_json(visitor, name, umbra_unit_verify(self->unit), errp);
}

static void set_statistics_clear(Object* object, bool value, Error** errp) {
    UmbraViommu* self = UMBRA_VIOMMU(object);

    if (value && self->unit != NULL) {
        umbra_unit_clear_statistics(self->unit);
    }
}

static void set_stats_write(Object* object, bool value, Error** errp) {
    UmbraViommu* self = UMBRA_VIOMMU(object);

    if (self->unit == NULL) {
        error_setg(errp, "the device is not realized");
    } else if (value) {
        umbra_stats_output_write_file(&self->stats, errp);
    }
}

/* ---- Types ---- */

static const Property viommu_properties[] = {
    DEFINE_PROP_BOOL("caching-mode", UmbraViommu, caching_mode, true),
    DEFINE_PROP_UINT8("aw-bits", UmbraViommu, address_width, 48),
    DEFINE_PROP_ON_OFF_AUTO("eim", UmbraViommu, extended_interrupt_mode, ON_OFF_AUTO_AUTO),
    DEFINE_PROP_BOOL("snoop-control", UmbraViommu, snoop_control, false),
    DEFINE_PROP_BOOL("coalesce", UmbraViommu, coalesce, true),
    DEFINE_PROP_STRING("on-map-error", UmbraViommu, on_map_error),
    DEFINE_PROP_UINT64("max-mappings", UmbraViommu, max_mappings, 4194304),
    DEFINE_PROP_UINT32("max-tables", UmbraViommu, max_tables, 32768),
    DEFINE_PROP_UINT32("slice-us", UmbraViommu, slice_us, 10000),
    DEFINE_PROP_STRING("stats-file", UmbraViommu, stats.file),
    DEFINE_PROP_STRING("stats-chardev", UmbraViommu, stats.chardev),
    DEFINE_PROP_UINT32("stats-interval", UmbraViommu, stats.interval, 1000),
};

static void viommu_class_init(ObjectClass* klass, UmbraClassData* data) {
    DeviceClass* device_class = DEVICE_CLASS(klass);
    X86IOMMUClass* iommu_class = X86_IOMMU_DEVICE_CLASS(klass);
    UmbraViommuClass* self_class = UMBRA_VIOMMU_CLASS(klass);

    device_class_set_parent_realize(device_class, viommu_realize, &self_class->parent_realize);
    device_class_set_props(device_class, viommu_properties);
    device_class->vmsd = &viommu_vmstate;
    device_class->hotpluggable = false;
    device_class->desc = "Intel VT-d unit that can shadow its guest's tables (Umbra)";
    set_bit(DEVICE_CATEGORY_MISC, device_class->categories);
    RESETTABLE_CLASS(klass)->phases.exit = reset_exit;
    iommu_class->realize = unit_realize;
    iommu_class->int_remap = int_remap;

    /* Written into the properties as found: intremap, pt and device-iotlb are x86-iommu's, which
     * has no words for them itself. */
    for (size_t i = 0; i < ARRAY_SIZE(property_help); i++) {
        ObjectProperty* property = object_class_property_find(klass, property_help[i].name);

        g_free(property->description);
        property->description = g_strdup(property_help[i].description);
    }

    object_class_property_add(klass, "statistics", "struct", get_statistics, NULL, NULL, NULL);
    object_class_property_set_description(
        klass, "statistics", "Invalidations, faults and IOTLB use since the last clear");
    object_class_property_add(klass, "verify", "struct", get_verify, NULL, NULL, NULL);
    object_class_property_set_description(
        klass, "verify",
        "What the guest's tables map and what the host has mapped, and how they differ");
    object_class_property_add_bool(klass, "statistics-clear", NULL, set_statistics_clear);
    object_class_property_set_description(klass, "statistics-clear",
                                          "Writing true sets all statistics to 0");
    object_class_property_add_bool(klass, "stats-write", NULL, set_stats_write);
    object_class_property_set_description(klass, "stats-write",
                                          "Writing true writes the statistics to stats-file");
}

void umbra_viommu_register_types(void) {
    static const TypeInfo viommu_info = {
        .name = TYPE_UMBRA_VIOMMU,
        .parent = TYPE_X86_IOMMU_DEVICE,
        .instance_size = sizeof(UmbraViommu),
        .class_size = sizeof(UmbraViommuClass),
        .class_init = viommu_class_init,
    };

    umbra_device_space_register_types();
    type_register_static(&viommu_info);
}
