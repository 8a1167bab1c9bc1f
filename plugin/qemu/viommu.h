// SPDX-License-Identifier: GPL-2.0-or-later
//
// The QOM device "umbra-viommu": one VT-d unit on a q35 machine. A sysbus device that the user may
// create, because the plugin puts it on the machine's list; a kind of x86-iommu, because QEMU asks
// that class when it sets up interrupt routes.
#ifndef UMBRA_QEMU_VIOMMU_H
#define UMBRA_QEMU_VIOMMU_H

#include "plugin/qemu/compat.h"

#define TYPE_UMBRA_VIOMMU "umbra-viommu"

void umbra_viommu_register_types(void);

/* The device's properties with values, defaults and what they do, for people. */
void umbra_viommu_print_help(FILE* out);

#endif
