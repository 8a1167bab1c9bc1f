/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The unit and its shadow as one object: how it is made, its registers, the work that a write to a
 * register leaves over, and its state for migration.
 */
#ifndef UMBRA_BRIDGE_UNIT_H
#define UMBRA_BRIDGE_UNIT_H

/* This file is C as well, so the advice for C++ does not apply.
 * NOLINTBEGIN(modernize-deprecated-headers,modernize-redundant-void-arg,modernize-use-using) */

#include <stdbool.h>
#include <stdint.h>

#include "plugin/bridge/bridge.h"
#include "plugin/bridge/platform.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Defaults of the operator's choices. */
enum {
    UMBRA_DEFAULT_ADDRESS_WIDTH = 48,
    UMBRA_DEFAULT_MAX_MAPPINGS = 4194304,
    UMBRA_DEFAULT_MAX_TABLES = 32768,
};

/* vtd::UnitProperties, which says what each means: the same bytes (convert.cc checks it). */
typedef struct UmbraUnitProperties {
    bool caching_mode;
    unsigned address_width;
    unsigned host_address_width;
    bool dma_translation;
    bool interrupt_remapping;
    bool extended_interrupt_mode;
    bool pass_through;
    bool device_iotlb;
    bool snoop_control;
} UmbraUnitProperties;

/* The operator's choices for the shadow; shadow::Options follows from them. */
typedef struct UmbraShadowOptions {
    bool coalesce;
    bool stop_on_map_error;
    uint64_t max_mappings; /* leaf entries of one guest domain */
    uint32_t max_tables;   /* table pages of one guest domain; the unit may have twice as many */
    uint32_t slice_us;     /* longest work at a time, in microseconds; 0: no limit */
} UmbraShadowOptions;

/* The operator's choice where the machine decides if there is none. */
typedef enum UmbraChoice { UMBRA_CHOICE_AUTO, UMBRA_CHOICE_ON, UMBRA_CHOICE_OFF } UmbraChoice;

/* Sets *enabled to the outcome of `eim`. Returns NULL, or a static sentence that says why the
 * choice cannot be had; *enabled is false then. `switch_on_wide_ids` makes the machine's interrupt
 * controller take 32-bit APIC ids, and returns whether it does. It changes the machine, so it is
 * called only if the outcome depends on it. */
const char* umbra_decide_extended_interrupt_mode(UmbraChoice eim, bool interrupt_remapping,
                                                 bool (*switch_on_wide_ids)(void),
                                                 bool* enabled) UMBRA_NOEXCEPT;

/* NULL if a unit can be made of `properties`, else a sentence that says why not. The sentence is
 * static. */
const char* umbra_unit_properties_error(const UmbraUnitProperties* properties) UMBRA_NOEXCEPT;

/* The caller owns the new unit. `properties` have no error. `*platform` is copied. The unit knows
 * of no RAM until umbra_unit_swap_ram_map(). [BQL] */
UmbraUnit* umbra_unit_new(const UmbraUnitProperties* properties, const UmbraShadowOptions* options,
                          const UmbraPlatform* platform) UMBRA_NOEXCEPT;
void umbra_unit_free(UmbraUnit* unit) UMBRA_NOEXCEPT;
/* The unit offers addresses of `width` bits (39 or 48) from here on. Only before the guest runs and
 * before state is loaded. [BQL] */
void umbra_unit_set_address_width(UmbraUnit* unit, unsigned width) UMBRA_NOEXCEPT;

/* ---- Registers ---- */

enum { UMBRA_REGISTER_SPACE = 0x1000 };

/* `offset` is below UMBRA_REGISTER_SPACE, `size` is 4 or 8. [BQL] */
uint64_t umbra_unit_mmio_read(const UmbraUnit* unit, uint32_t offset, unsigned size) UMBRA_NOEXCEPT;
/* May leave work over (umbra_unit_has_work()). [BQL] */
void umbra_unit_mmio_write(UmbraUnit* unit, uint32_t offset, uint64_t value,
                           unsigned size) UMBRA_NOEXCEPT;
void umbra_unit_reset(UmbraUnit* unit) UMBRA_NOEXCEPT; /* [BQL] */

/* ---- Work ---- */

/* An invalidation can change so much that one call would hold the lock for long. Then the write to
 * the register leaves work over, and the guest's wait descriptor or command completes later. The
 * caller of the write sees to it that umbra_unit_work() is called until it returns false, and lets
 * the lock go between two calls. [BQL] */
bool umbra_unit_has_work(const UmbraUnit* unit) UMBRA_NOEXCEPT;
/* Does a part of the work. True if some is left. [BQL] */
bool umbra_unit_work(UmbraUnit* unit) UMBRA_NOEXCEPT;

/* With on-map-error=stop: whether a mapping that the host refused is missing. While it is, no vCPU
 * may run, and what the guest waits for does not complete and is no work. [BQL] */
bool umbra_unit_holds_machine(const UmbraUnit* unit) UMBRA_NOEXCEPT;
/* The machine is about to go on: maps that the host refused are tried again, until the host refuses
 * again. May leave work over. [BQL] */
void umbra_unit_machine_goes_on(UmbraUnit* unit) UMBRA_NOEXCEPT;
/* Another choice of on-map-error. With report nothing holds the machine from here on, and what
 * waits is work; with stop the next refusal holds it. [BQL] */
void umbra_unit_set_stop_on_map_error(UmbraUnit* unit, bool stop) UMBRA_NOEXCEPT;

/* Maps and unmaps that the host refused are tried again now and then, without the guest's doing.
 * In how many milliseconds that is due; 0 if nothing is to be tried. [BQL] */
unsigned umbra_unit_retry_delay_ms(UmbraUnit* unit) UMBRA_NOEXCEPT;
/* It is due. Leaves work over (umbra_unit_has_work()). [BQL] */
void umbra_unit_retry(UmbraUnit* unit) UMBRA_NOEXCEPT;

/* ---- State ---- */

enum { UMBRA_SAVED_REGISTER_BYTES = 0x300 };

/* vtd::SavedState, which says what each means: the same bytes (convert.cc checks it). */
typedef struct UmbraSavedState {
    uint32_t version;
    uint8_t registers[UMBRA_SAVED_REGISTER_BYTES];
    uint64_t root_table;
    uint64_t interrupt_table;
    uint32_t next_fault_record;
} UmbraSavedState;

void umbra_unit_save(const UmbraUnit* unit, UmbraSavedState* state) UMBRA_NOEXCEPT; /* [BQL] */
/* False, and nothing changed, if `state` does not come from a unit with the same properties. [BQL]
 */
bool umbra_unit_restore(UmbraUnit* unit, const UmbraSavedState* state) UMBRA_NOEXCEPT;

#ifdef __cplusplus
}
#endif

/* NOLINTEND(modernize-deprecated-headers,modernize-redundant-void-arg,modernize-use-using) */

#endif
