// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/platform.h"

#include "plugin/qemu/interrupts.h"
#include "plugin/qemu/viommu_name.h"
#include "qemu/error-report.h"
#include "system/runstate.h"

static bool write_memory(void* opaque, uint64_t address, const void* from, size_t size) {
    return address_space_write(&address_space_memory, address, MEMTXATTRS_UNSPECIFIED, from,
                               size) == MEMTX_OK;
}

static void send_message(void* opaque, uint64_t address, uint32_t data) {
    umbra_interrupt_send(address, data);
}

static void contexts_changed(void* opaque, const UmbraScope* scope) {
    const UmbraQemuPlatform* self = opaque;

    umbra_topology_contexts_changed(self->topology, scope);
}

static void translation_changed(void* opaque) {
    const UmbraScope everything = {.kind = UMBRA_SCOPE_GLOBAL};

    contexts_changed(opaque, &everything);
}

static void iotlb_changed(void* opaque, const UmbraScope* scope) {
    const UmbraQemuPlatform* self = opaque;

    umbra_topology_iotlb_changed(self->topology, scope);
}

static void device_tlb_changed(void* opaque, uint16_t source, uint64_t first, uint64_t last) {
    const UmbraQemuPlatform* self = opaque;

    umbra_topology_device_tlb_changed(self->topology, source, first, last);
}

static void interrupt_entries_changed(void* opaque) {
    const UmbraQemuPlatform* self = opaque;

    x86_iommu_iec_notify_all(self->iommu, true, 0, 0);
}

static void interrupt_remapping_changed(void* opaque) {
    const UmbraQemuPlatform* self = opaque;

    umbra_topology_update(self->topology);
    interrupt_entries_changed(opaque);
}

static void report(void* opaque, bool trouble, const char* sentence) {
    if (trouble) {
        error_report(TYPE_UMBRA_VIOMMU ": %s", sentence);
    } else {
        info_report(TYPE_UMBRA_VIOMMU ": %s", sentence);
    }
}

void umbra_qemu_platform_request_stop(void) {
    qemu_system_vmstop_request_prepare();
    qemu_system_vmstop_request(RUN_STATE_IO_ERROR);
}

static void stop_machine(void* opaque) {
    const UmbraQemuPlatform* self = opaque;

    if (runstate_is_running() && !self->going_on) {
        umbra_qemu_platform_request_stop();
    }
}

UmbraPlatform umbra_qemu_platform(UmbraQemuPlatform* self) {
    return (UmbraPlatform){
        .opaque = self,
        .write_memory = write_memory,
        .send_message = send_message,
        .translation_changed = translation_changed,
        .contexts_changed = contexts_changed,
        .iotlb_changed = iotlb_changed,
        .device_tlb_changed = device_tlb_changed,
        .interrupt_remapping_changed = interrupt_remapping_changed,
        .interrupt_entries_changed = interrupt_entries_changed,
        .report = report,
        .stop_machine = stop_machine,
        .qom_path = self->qom_path,
    };
}
