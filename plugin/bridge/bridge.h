/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Where C meets C++, and the rules for every C header of this folder. The C files of plugin/qemu
 * see QEMU and, of the unit, only these headers, one a subject. The C++ files see the unit and no
 * header of QEMU.
 *
 *   unit.h        the unit with its shadow: making one, registers, work, saved state
 *   platform.h    the machine around the unit, as the functions that it provides
 *   ram.h         guest RAM
 *   requests.h    requests of devices to the unit: DMA and interrupts
 *   shadow.h      where the mappings of a device go
 *   statistics.h  counters, and the check of the shadow
 *
 * The functions are defined in the files named ..._face.cc, over the object that assembly.h
 * describes; those of a map of RAM in guest_ram.cc.
 *
 * Plain data crosses, and functions that do not throw: a failure is in the result. Addresses and
 * sizes are in bytes. A source-id is a PCI requester id (bus 15:8, device 7:3, function 2:0).
 *
 * Threading follows plugin/vtd/unit.h. Functions marked [BQL] need QEMU's big lock. Functions
 * marked [RCU] may be called from any thread inside an RCU read-side critical section; the big lock
 * counts as one, because the memory map changes only under it.
 *
 * Memory that runs out ends the process, as everywhere in QEMU.
 */
#ifndef UMBRA_BRIDGE_BRIDGE_H
#define UMBRA_BRIDGE_BRIDGE_H

#ifdef __cplusplus
#define UMBRA_NOEXCEPT noexcept
#else
#define UMBRA_NOEXCEPT
#endif

/* One unit with its shadow (unit.h). */
// NOLINTNEXTLINE(modernize-use-using): the header is C as well
typedef struct UmbraUnit UmbraUnit;

#endif
