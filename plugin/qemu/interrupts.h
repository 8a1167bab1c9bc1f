// SPDX-License-Identifier: GPL-2.0-or-later
//
// Interrupt messages on their way to the local APICs.
#ifndef UMBRA_QEMU_INTERRUPTS_H
#define UMBRA_QEMU_INTERRUPTS_H

#include "plugin/bridge/requests.h"
#include "plugin/qemu/compat.h"

#include "hw/pci/msi.h"

/* Remaps a message of device `source` and delivers the result. False if the message was blocked;
 * then the unit has logged the fault. Needs the big lock. */
bool umbra_interrupt_deliver(UmbraUnit* unit, uint16_t source, uint64_t address, uint32_t data);

/* The outcome of a message of `source`, for a route that is set up ahead of the interrupt. A
 * message that would be blocked becomes one that reaches no CPU; nothing is logged. Needs the big
 * lock. */
MSIMessage umbra_interrupt_route(const UmbraUnit* unit, uint16_t source, const MSIMessage* message);

/* Delivers a message as it is, from any thread: at once if the caller has the big lock, else soon
 * after, from the main loop. */
void umbra_interrupt_send(uint64_t address, uint32_t data);

#endif
