// SPDX-License-Identifier: GPL-2.0-or-later
//
// Follows the guest's memory map and keeps the unit's table of guest RAM equal to it. A replaced
// table is freed, and the memory that only it names released, after an RCU grace period.
//
// Of memory with a RamDiscardManager (virtio-mem) only the plugged blocks count as RAM, as they do
// for QEMU's own VFIO code: to pin the others, the host would have to find memory for them.
//
// All functions need the big lock.
#ifndef UMBRA_QEMU_RAM_LISTENER_H
#define UMBRA_QEMU_RAM_LISTENER_H

#include "plugin/bridge/ram.h"
#include "plugin/qemu/compat.h"

typedef struct UmbraRamListener {
    MemoryListener listener;
    UmbraUnit* unit;
    GPtrArray* sections;       /* of RamSection (ram_listener.c) */
    GPtrArray* regions_in_use; /* regions that the table now in force names, referenced */
    bool changed;              /* since the last commit of the memory map */
    bool section_changing;     /* while a section comes or goes */
} UmbraRamListener;

/* Begins to follow. `unit` outlives the listener. */
void umbra_ram_listener_start(UmbraRamListener* ram, UmbraUnit* unit);

#endif
