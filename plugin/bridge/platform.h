/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The platform around the unit, as the functions that it provides.
 */
#ifndef UMBRA_BRIDGE_PLATFORM_H
#define UMBRA_BRIDGE_PLATFORM_H

/* This file is C as well, so the advice for C++ does not apply.
 * NOLINTBEGIN(modernize-deprecated-headers,modernize-use-using) */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum UmbraScopeKind {
    UMBRA_SCOPE_GLOBAL,
    UMBRA_SCOPE_DOMAIN, /* `domain` */
    UMBRA_SCOPE_DEVICE, /* context cache: `domain`, `source`, `function_mask` */
    UMBRA_SCOPE_PAGES,  /* IOTLB: `domain`, `first` to `last` */
} UmbraScopeKind;

/* The part of a cache that an invalidation covers. Only the members that the kind names mean
 * something. */
typedef struct UmbraScope {
    UmbraScopeKind kind;
    uint16_t domain;
    uint16_t source;
    /* Function-number bits of `source` that are not compared (a mask, 0 to 7). */
    uint8_t function_mask;
    /* IOVAs, both included. */
    uint64_t first;
    uint64_t last;
} UmbraScope;

/* write_memory and send_message are called from any thread that may do DMA, all others with the big
 * lock held. The functions named ..._changed are called after the unit has dropped its own cached
 * entries, and before the guest sees the invalidation completed. */
typedef struct UmbraPlatform {
    void* opaque;
    /* All of the target is writable RAM. False if the write failed. */
    bool (*write_memory)(void* opaque, uint64_t address, const void* from, size_t size);
    /* Sends an interrupt of the unit itself, which is not remapped. Must not call the unit. */
    void (*send_message)(void* opaque, uint64_t address, uint32_t data);
    /* Translation went on or off, or has a new root table. */
    void (*translation_changed)(void* opaque);
    void (*contexts_changed)(void* opaque, const UmbraScope* scope);
    void (*iotlb_changed)(void* opaque, const UmbraScope* scope);
    /* A device's own TLB must drop `first` to `last`. */
    void (*device_tlb_changed)(void* opaque, uint16_t source, uint64_t first, uint64_t last);
    /* Interrupt remapping went on or off, or compatibility format was allowed or blocked. */
    void (*interrupt_remapping_changed)(void* opaque);
    /* Some interrupt remapping entries changed since the last call. */
    void (*interrupt_entries_changed)(void* opaque);
    /* A sentence for the operator about mappings that the host refused, or took after all. */
    void (*report)(void* opaque, bool trouble, const char* sentence);
    /* With on-map-error=stop: the machine must stop soon, because a mapping is missing. The guest
     * sees nothing completed before the mapping is there (umbra_unit_holds_machine()). */
    void (*stop_machine)(void* opaque);
    /* A call other than a write to a register has left work over (umbra_unit_has_work()). */
    void (*work_left)(void* opaque);
    /* The operator's name for the unit in qom-set. Outlives the unit. */
    const char* qom_path;
} UmbraPlatform;

#ifdef __cplusplus
}
#endif

/* NOLINTEND(modernize-deprecated-headers,modernize-use-using) */

#endif
