// SPDX-License-Identifier: GPL-2.0-or-later
//
// The class of the IOMMU region in a device's space (device_space.h): every access asks the unit,
// and listeners of the region are served.
#ifndef UMBRA_QEMU_TRANSLATED_REGION_H
#define UMBRA_QEMU_TRANSLATED_REGION_H

void umbra_translated_region_register_type(void);

#endif
