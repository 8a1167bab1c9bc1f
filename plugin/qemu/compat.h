// SPDX-License-Identifier: GPL-2.0-or-later
//
// Every difference between the QEMU versions that the plugin builds against (10.0 and 10.2), and
// the first header of every C file here: it brings in qemu/osdep.h, which QEMU wants first.
#ifndef UMBRA_QEMU_COMPAT_H
#define UMBRA_QEMU_COMPAT_H

#include "qemu/osdep.h"

#define UMBRA_QEMU_AT_LEAST(major, minor) \
    (QEMU_VERSION_MAJOR > (major) ||      \
     (QEMU_VERSION_MAJOR == (major) && QEMU_VERSION_MINOR >= (minor)))

#if !UMBRA_QEMU_AT_LEAST(10, 0)
#error "Umbra builds against QEMU 10.0 and 10.2; this tree is older"
#endif

// The memory API's headers moved to system/ in 10.1.
#if UMBRA_QEMU_AT_LEAST(10, 1)
#include "system/address-spaces.h"
#include "system/memory.h"
#else
#include "exec/address-spaces.h"
#include "exec/memory.h"
#endif

// The data argument of a QOM class_init function became const in 10.1.
#if UMBRA_QEMU_AT_LEAST(10, 1)
typedef const void UmbraClassData;
#else
typedef void UmbraClassData;
#endif

// x86-iommu got a property dma-translation in 10.2.
#if UMBRA_QEMU_AT_LEAST(10, 2)
#define umbra_dma_translation_wanted(x86_iommu) ((x86_iommu)->dma_translation)
#else
#define umbra_dma_translation_wanted(x86_iommu) true
#endif

#endif
