// SPDX-License-Identifier: GPL-2.0-or-later
//
// Follows the guest's memory map and keeps the unit's table of guest RAM equal to it. A replaced
// table is freed, and the memory that only it names released, after an RCU grace period.
//
// All functions need the big lock.
#ifndef UMBRA_QEMU_RAM_LISTENER_H
#define UMBRA_QEMU_RAM_LISTENER_H

#include "plugin/qemu/bridge.h"
#include "plugin/qemu/compat.h"

typedef struct UmbraRamListener {
    MemoryListener listener;
    UmbraUnit* unit;
    GArray* sections;          /* of MemoryRegionSection, each holding a reference to its region */
    GPtrArray* regions_in_use; /* regions that the table now in force names, referenced */
    bool changed;
} UmbraRamListener;

/* Begins to follow. `unit` outlives the listener. */
void umbra_ram_listener_start(UmbraRamListener* ram, UmbraUnit* unit);

#endif
