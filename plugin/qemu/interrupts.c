// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/interrupts.h"

#include "block/aio.h"
#include "hw/i386/apic_internal.h"
#include "hw/i386/x86-iommu.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"

static void deliver(MSIMessage message) {
    APICCommonClass* apic = apic_get_class(NULL);

    if (apic != NULL) {
        apic->send_msi(&message);
    }
}

static MSIMessage outcome(const UmbraInterrupt* interrupt, const MSIMessage* message) {
    MSIMessage remapped = *message;

    if (interrupt->remapped) {
        X86IOMMUIrq irq = {
            .trigger_mode = interrupt->level_triggered,
            .vector = interrupt->vector,
            .delivery_mode = interrupt->delivery_mode,
            .dest = interrupt->destination,
            .dest_mode = interrupt->logical_destination,
            .redir_hint = interrupt->redirection_hint,
        };

        x86_iommu_irq_to_msi_message(&irq, &remapped);
    }
    return remapped;
}

bool umbra_interrupt_deliver(UmbraUnit* unit, uint16_t source, uint64_t address, uint32_t data) {
    const MSIMessage message = {.address = address, .data = data};
    const UmbraInterrupt interrupt = umbra_unit_remap(unit, source, address, data);

    if (interrupt.ok) {
        deliver(outcome(&interrupt, &message));
    }
    return interrupt.ok;
}

MSIMessage umbra_interrupt_route(const UmbraUnit* unit, uint16_t source,
                                 const MSIMessage* message) {
    const UmbraInterrupt interrupt =
        umbra_unit_route_interrupt(unit, source, message->address, message->data);

    return outcome(&interrupt, message);
}

static void deliver_deferred(void* opaque) {
    g_autofree MSIMessage* message = opaque;

    deliver(*message);
}

void umbra_interrupt_send(uint64_t address, uint32_t data) {
    const MSIMessage message = {.address = address, .data = data};

    if (bql_locked()) {
        deliver(message);
    } else {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), deliver_deferred,
                                g_memdup2(&message, sizeof(message)));
    }
}
