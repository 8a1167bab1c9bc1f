// SPDX-License-Identifier: GPL-2.0-or-later
//
// The machine option kernel-irqchip. QEMU turns it into a property of the accelerator KVM. With
// another accelerator it has no effect, and QEMU does not say so.
#ifndef UMBRA_QEMU_IRQCHIP_OPTION_H
#define UMBRA_QEMU_IRQCHIP_OPTION_H

#include <stdbool.h>

/* True if the command line asks KVM to have the whole interrupt controller, whatever accelerator
 * the machine has. False in a QEMU without KVM, which does not keep the option. To be called with
 * the big lock, once the command line is parsed. A value that QEMU does not know ends the process
 * with QEMU's message. */
bool umbra_whole_kernel_irqchip_wanted(void);

#endif
