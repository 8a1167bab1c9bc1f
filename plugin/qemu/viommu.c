// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/viommu.h"

#include "hw/qdev-properties.h"
#include "migration/vmstate.h"
#include "plugin/qemu/device_refusal.h"
#include "plugin/qemu/device_space.h"
#include "plugin/qemu/dmar_table.h"
#include "plugin/qemu/inspection.h"
#include "plugin/qemu/interrupts.h"
#include "plugin/qemu/machine.h"
#include "plugin/qemu/translated_region.h"
#include "plugin/qemu/viommu_state.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/timer.h"
#include "system/runstate.h"

/* Where chipsets of this kind have their unit, and where a guest's firmware leaves room for it. */
#define REGISTER_BASE 0xfed90000ULL

/* ---- Work that takes long ---- */

/* Work goes on by a timer, not by a bottom half: the main loop has to sleep in between, or no other
 * thread would get the lock. */
enum { WORK_PAUSE_MS = 1 };

/* Whether the machine runs although the unit holds it. It was asked to stop; until it has, the
 * guest sees nothing completed. */
static bool must_stop(const UmbraViommu* self) {
    return umbra_unit_holds_machine(self->unit) && runstate_is_running();
}

static void schedule_work(UmbraViommu* self) {
    unsigned retry_ms;

    /* A pause that has begun is not begun again: a guest that goes on writing to registers would
     * put the work off for ever. */
    if ((umbra_unit_has_work(self->unit) || must_stop(self)) && !timer_pending(self->work)) {
        timer_mod(self->work, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + WORK_PAUSE_MS);
    }
    if (!timer_pending(self->retry)) {
        retry_ms = umbra_unit_retry_delay_ms(self->unit);
        if (retry_ms != 0) {
            timer_mod(self->retry, qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) + retry_ms);
        }
    }
}

static void work_left(void* opaque) {
    schedule_work(container_of((UmbraQemuPlatform*)opaque, UmbraViommu, platform));
}

/* By the guest's clock: a machine that stands still tries again when it goes on. */
static void retry_refused(void* opaque) {
    UmbraViommu* self = opaque;

    umbra_unit_retry(self->unit);
    schedule_work(self);
}

static void do_work(void* opaque) {
    UmbraViommu* self = opaque;

    /* By now the main loop has stopped the machine, unless the monitor's "cont" came first: that
     * takes the request to stop back. */
    if (must_stop(self)) {
        umbra_qemu_platform_request_stop();
    }
    umbra_unit_work(self->unit);
    schedule_work(self);
}

void umbra_viommu_map_error_choice_changed(UmbraViommu* self) {
    if (self->unit != NULL) {
        umbra_unit_set_stop_on_map_error(self->unit, self->properties.stop_on_map_error);
        /* What waits for a machine that stands still completes when it goes on. */
        if (runstate_is_running()) {
            schedule_work(self);
        }
    }
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

/* ---- Interrupt routes ---- */

/* KVM asks for the outcome when it makes or refreshes a route (an irqfd, or a pin of the I/O APIC,
 * which comes without a source-id). An error would leave the route in force that was good before,
 * and ends QEMU where a device unmasks a vector (msix_fire_vector_notifier()). */
static int int_remap(X86IOMMUState* iommu, MSIMessage* message, MSIMessage* remapped,
                     uint16_t source) {
    UmbraViommu* self = UMBRA_VIOMMU(iommu);

    if (source == X86_IOMMU_SID_INVALID) {
        source = umbra_topology_ioapic_source();
    }
    *remapped = umbra_interrupt_route(self->unit, source, message);
    return 0;
}

/* ---- Life ---- */

/* The guest is about to see the unit, or the state of one: aw-bits stays as it is. */
static void settle_address_width(UmbraViommu* self) {
    self->topology.context.address_width_open = false;
    self->properties.address_width = (uint8_t)self->topology.context.address_width;
}

/* When state is loaded, the unit gets its tables back before bridges get their bus numbers, and the
 * view of a device behind a bridge depends on both. Both are in place when the machine goes on. */
static void run_state_changed(void* opaque, bool running, RunState state) {
    UmbraViommu* self = opaque;

    if (running) {
        settle_address_width(self);
        umbra_topology_update(&self->topology);
        self->platform.going_on = true;
        umbra_unit_machine_goes_on(self->unit);
        self->platform.going_on = false;
        schedule_work(self);
    } else {
        /* A machine that stands still must not write to its memory, which may be on its way to
         * another host. So everything that the guest waits for is completed first, unless it holds
         * the machine: then it stays in the queue. */
        finish_work(self);
    }
}

/* The last handler when a machine goes on, and the first when it stops. All others have gone on, so
 * they can all be told of the stop, and QEMU resumes no vCPU after it. A guest that sleeps runs on
 * no vCPU, and waking it up resets the unit. */
static void stop_again(void* opaque, bool running, RunState state) {
    const UmbraViommu* self = opaque;

    if (running && must_stop(self)) {
        vm_stop(RUN_STATE_IO_ERROR);
    }
}

static void unit_realize(DeviceState* device, Error** errp) {
    UmbraViommu* self = UMBRA_VIOMMU(device);
    X86IOMMUState* iommu = X86_IOMMU_DEVICE(device);
    UmbraShadowOptions options;
    UmbraUnitProperties properties;
    UmbraPlatform platform;
    UmbraDmarTable dmar;

    if (!umbra_properties_of_unit(&self->properties, iommu, &properties, errp) ||
        !umbra_properties_of_shadow(&self->properties, &options, errp)) {
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

    self->platform = (UmbraQemuPlatform){
        .iommu = iommu,
        .topology = &self->topology,
        .qom_path = object_get_canonical_path(OBJECT(self)),
    };
    platform = umbra_qemu_platform(&self->platform);
    platform.work_left = work_left;
    self->unit = umbra_unit_new(&properties, &options, &platform);
    if (!umbra_stats_output_start(&self->stats, &self->properties.stats, self->unit,
                                  umbra_viommu_name(self), errp)) {
        umbra_unit_free(self->unit);
        self->unit = NULL;
        return;
    }
    self->work = timer_new_ms(QEMU_CLOCK_REALTIME, do_work, self);
    self->retry = timer_new_ms(QEMU_CLOCK_VIRTUAL, retry_refused, self);
    umbra_ram_listener_start(&self->ram, self->unit);

    memory_region_init_io(&self->registers, OBJECT(self), &registers_ops, self, TYPE_UMBRA_VIOMMU,
                          UMBRA_REGISTER_SPACE);
    sysbus_init_mmio(SYS_BUS_DEVICE(self), &self->registers);
    sysbus_mmio_map(SYS_BUS_DEVICE(self), 0, REGISTER_BASE);

    umbra_topology_start(&self->topology, OBJECT(self), self->unit, &properties);
    self->topology.context.address_width_open = self->properties.address_width == 0;
    umbra_device_refusal_start(&properties);
    umbra_machine_check_when_complete();
    qemu_add_vm_change_state_handler(run_state_changed, self);
    qemu_add_vm_change_state_handler_prio(stop_again, self, INT_MAX);
}

static void viommu_realize(DeviceState* device, Error** errp) {
    UmbraViommuClass* self_class = UMBRA_VIOMMU_GET_CLASS(device);

    if (umbra_machine_check(X86_IOMMU_DEVICE(device), errp)) {
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

    settle_address_width(self);
    if (!umbra_unit_restore(self->unit, &self->saved)) {
        error_report(
            TYPE_UMBRA_VIOMMU
            ": the saved state does not come from a unit with these properties; start QEMU with those of the source, and aw-bits with its number, which aw-bits=auto takes from the host's devices");
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

/* ---- Types ---- */

static void viommu_class_init(ObjectClass* klass, UmbraClassData* data) {
    DeviceClass* device_class = DEVICE_CLASS(klass);
    X86IOMMUClass* iommu_class = X86_IOMMU_DEVICE_CLASS(klass);
    UmbraViommuClass* self_class = UMBRA_VIOMMU_CLASS(klass);

    device_class_set_parent_realize(device_class, viommu_realize, &self_class->parent_realize);
    device_class->vmsd = &viommu_vmstate;
    device_class->hotpluggable = false;
    device_class->desc = "Intel VT-d unit that can shadow its guest's tables (Umbra)";
    set_bit(DEVICE_CATEGORY_MISC, device_class->categories);
    RESETTABLE_CLASS(klass)->phases.exit = reset_exit;
    iommu_class->realize = unit_realize;
    iommu_class->int_remap = int_remap;
    umbra_properties_add(klass, offsetof(UmbraViommu, properties));
    umbra_inspection_add(klass);
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
    umbra_translated_region_register_type();
    type_register_static(&viommu_info);
}

void umbra_viommu_print_help(FILE* out) {
    fputs(
        "Umbra: a virtual Intel VT-d unit\n\n"
        "  -M q35 -plugin file=./umbra.so,device=on[,property=value...]\n\n"
        "or, with a place of its own among the devices:\n\n"
        "  -M q35 -plugin file=./umbra.so -device " TYPE_UMBRA_VIOMMU
        "[,property=value...]\n\n"
        "Every PCI device is behind it. With device=on it is made before all of them. With -device, name\n"
        "vfio-pci and vfio-user-pci devices after it; others may come before or after it. Properties:\n\n",
        out);
    umbra_properties_print_help(object_class_by_name(TYPE_UMBRA_VIOMMU), out);
    fputs("\nWhile the machine runs (QMP; the path ends in the device's id):\n\n", out);
    umbra_inspection_print_help(out);
}
