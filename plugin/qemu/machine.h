// SPDX-License-Identifier: GPL-2.0-or-later
//
// The machine around the unit: whether the unit can be on it, and how wide its addresses and
// interrupts are.
//
// Functions need the big lock.
#ifndef UMBRA_QEMU_MACHINE_H
#define UMBRA_QEMU_MACHINE_H

#include "plugin/qemu/compat.h"

#include "hw/i386/x86-iommu.h"

/* False with an error if the machine, or a property of x86-iommu, does not suit the unit. Refuses
 * what QEMU's x86-iommu would refuse in fewer words, or not at all. To be called before x86-iommu
 * is realized. */
bool umbra_machine_check(const X86IOMMUState* iommu, Error** errp);

/* Once the machine is complete, ends QEMU with a message if devices bypass the unit. */
void umbra_machine_check_when_complete(void);

/* Width of guest-physical addresses in bits: that of the guest's CPUs. */
unsigned umbra_machine_address_width(void);

/* Switches KVM's interrupt controller to 32-bit destinations if it can be switched. Returns whether
 * the machine's interrupt controller takes them. */
bool umbra_machine_switch_on_wide_interrupts(void);

#endif
