/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Requests of the devices behind the unit: translation of DMA and remapping of interrupts
 * (specification 3 and 5).
 */
#ifndef UMBRA_BRIDGE_REQUESTS_H
#define UMBRA_BRIDGE_REQUESTS_H

/* This file is C as well, so the advice for C++ does not apply.
 * NOLINTBEGIN(modernize-deprecated-headers,modernize-use-using) */

#include <stdbool.h>
#include <stdint.h>

#include "plugin/bridge/bridge.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { UMBRA_ACCESS_NONE = 0, UMBRA_ACCESS_READ = 1, UMBRA_ACCESS_WRITE = 2 };

typedef struct UmbraTranslation {
    bool ok;            /* false: blocked; the rest means nothing */
    uint8_t access;     /* everything that the mapping allows: UMBRA_ACCESS_* */
    uint64_t address;   /* guest-physical, offset in the page included */
    uint64_t page_mask; /* size of the page minus one */
} UmbraTranslation;

/* Translates a DMA and logs the fault if it must not happen. [RCU] */
UmbraTranslation umbra_unit_translate(UmbraUnit* unit, uint16_t source, uint64_t iova,
                                      unsigned wanted) UMBRA_NOEXCEPT;
/* The same without any side effect. [RCU] */
UmbraTranslation umbra_unit_lookup(const UmbraUnit* unit, uint16_t source,
                                   uint64_t iova) UMBRA_NOEXCEPT;

typedef struct UmbraInterrupt {
    bool ok;       /* false: blocked */
    bool remapped; /* false: deliver the message as it is; the rest is 0 */
    bool logical_destination;
    bool redirection_hint;
    bool level_triggered;
    uint8_t vector;
    uint8_t delivery_mode;
    uint32_t destination;
} UmbraInterrupt;

/* Remaps a message that was sent, and logs the fault if it must not be delivered. [RCU] */
UmbraInterrupt umbra_unit_remap(UmbraUnit* unit, uint16_t source, uint64_t address,
                                uint32_t data) UMBRA_NOEXCEPT;
/* The outcome for a route that is set up ahead of the interrupt, without any side effect. A blocked
 * message (`ok` is false) has an outcome too, one that reaches no CPU: logical destination 0. So a
 * route that was good before the guest cleared its entry does not stay in force. [RCU] */
UmbraInterrupt umbra_unit_route_interrupt(const UmbraUnit* unit, uint16_t source, uint64_t address,
                                          uint32_t data) UMBRA_NOEXCEPT;

/* The context of a device, as the guest's tables have it now. */
typedef struct UmbraContext {
    bool present;      /* false: the device's DMA faults; the rest is 0 */
    bool pass_through; /* the device's addresses are guest-physical */
    uint16_t domain;
} UmbraContext;

/* [RCU] */
UmbraContext umbra_unit_context(const UmbraUnit* unit, uint16_t source) UMBRA_NOEXCEPT;
/* Any thread. */
bool umbra_unit_translation_enabled(const UmbraUnit* unit) UMBRA_NOEXCEPT;
bool umbra_unit_interrupt_remapping_enabled(const UmbraUnit* unit) UMBRA_NOEXCEPT;

#ifdef __cplusplus
}
#endif

/* NOLINTEND(modernize-deprecated-headers,modernize-use-using) */

#endif
