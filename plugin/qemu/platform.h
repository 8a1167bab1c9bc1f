// SPDX-License-Identifier: GPL-2.0-or-later
//
// QEMU as the platform of the unit (plugin/bridge/platform.h): guest memory, interrupts, the spaces
// of the devices, the operator, and the run state.
#ifndef UMBRA_QEMU_PLATFORM_H
#define UMBRA_QEMU_PLATFORM_H

#include "plugin/qemu/compat.h"

#include "hw/i386/x86-iommu.h"
#include "plugin/bridge/platform.h"
#include "plugin/qemu/topology.h"

typedef struct UmbraQemuPlatform {
    X86IOMMUState* iommu;
    UmbraTopology* topology;
    char* qom_path; /* of the unit; the platform's own */
    /* The machine is about to go on, and does not if the unit still holds it: no request to stop it
     * is needed. */
    bool going_on;
} UmbraQemuPlatform;

/* The functions and the name over `self`, which outlives the unit that gets them. */
UmbraPlatform umbra_qemu_platform(UmbraQemuPlatform* self);

/* Asks the main loop to stop the machine, as after an I/O error. */
void umbra_qemu_platform_request_stop(void);

#endif
