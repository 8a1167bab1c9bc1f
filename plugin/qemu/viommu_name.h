// SPDX-License-Identifier: GPL-2.0-or-later
//
// The name of the device type, by which operators and messages call the unit.
#ifndef UMBRA_QEMU_VIOMMU_NAME_H
#define UMBRA_QEMU_VIOMMU_NAME_H

#define TYPE_UMBRA_VIOMMU "umbra-viommu"

#endif
