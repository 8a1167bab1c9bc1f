// SPDX-License-Identifier: GPL-2.0-or-later
//
// The QOM device "umbra-viommu": one VT-d unit on a q35 machine. It is a sysbus device that the
// user may create, because the plugin puts it on the machine's list. It is a kind of x86-iommu,
// because QEMU asks that class when it sets up interrupt routes.
//
// Needs the big lock.
#ifndef UMBRA_QEMU_VIOMMU_H
#define UMBRA_QEMU_VIOMMU_H

#include "plugin/qemu/compat.h"

void umbra_viommu_register_types(void);

/* Says for people how to start the unit, and which properties it has. The types are registered. */
void umbra_viommu_print_help(FILE* out);

#endif
