/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Guest RAM as the unit and the shadow reach it: a table of pieces of memory. When the memory map
 * changes, a new table takes the place of the one in force.
 */
#ifndef UMBRA_BRIDGE_RAM_H
#define UMBRA_BRIDGE_RAM_H

/* This file is C as well, so the advice for C++ does not apply.
 * NOLINTBEGIN(modernize-deprecated-headers,modernize-use-using) */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "plugin/bridge/bridge.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A piece of guest RAM (or ROM, then not writable) that is contiguous in QEMU's address space. */
typedef struct UmbraRamRange {
    uint64_t address; /* guest-physical */
    uint64_t size;
    uint8_t* host;
    bool writable;
} UmbraRamRange;

/* An immutable, sorted set of such pieces. */
typedef struct UmbraRamMap UmbraRamMap;

/* The caller owns the new map. `ranges` come in any order and do not overlap. */
UmbraRamMap* umbra_ram_map_new(const UmbraRamRange* ranges, size_t count) UMBRA_NOEXCEPT;
void umbra_ram_map_free(UmbraRamMap* map) UMBRA_NOEXCEPT;

/* Puts `map` in force. Returns the previous map (NULL at first), which the caller frees after a
 * grace period; until then its host memory stays in place. When the call returns, no device reaches
 * host memory that `map` does not name. [BQL] */
UmbraRamMap* umbra_unit_swap_ram_map(UmbraUnit* unit, UmbraRamMap* map) UMBRA_NOEXCEPT;

#ifdef __cplusplus
}
#endif

/* NOLINTEND(modernize-deprecated-headers,modernize-use-using) */

#endif
