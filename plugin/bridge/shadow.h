/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The shadow: the mappings of the guest's tables as mappings on the host, device by device.
 */
#ifndef UMBRA_BRIDGE_SHADOW_H
#define UMBRA_BRIDGE_SHADOW_H

/* This file is C as well, so the advice for C++ does not apply.
 * NOLINTBEGIN(modernize-deprecated-headers,modernize-use-using) */

#include <stddef.h>
#include <stdint.h>

#include "plugin/bridge/bridge.h"

#ifdef __cplusplus
extern "C" {
#endif

/* shadow::DmaMode: what the device's DMA goes through. */
typedef enum UmbraDmaMode {
    UMBRA_DMA_BLOCKED,
    UMBRA_DMA_TRANSLATED,
    UMBRA_DMA_PASS_THROUGH,
} UmbraDmaMode;

/* shadow::HostMapping: the same bytes (convert.cc checks it). */
typedef struct UmbraHostMapping {
    uint64_t iova;
    uint64_t bytes;
    void* host;
    uint64_t guest; /* guest-physical address of the memory at `host` */
    uint8_t access; /* UMBRA_ACCESS_* (requests.h) */
} UmbraHostMapping;

/* IOVAs `first` to `last`, both included. */
typedef struct UmbraIovaRange {
    uint64_t first;
    uint64_t last;
} UmbraIovaRange;

/* Where the mappings of one device go, as functions of QEMU's side. The rules for maps and unmaps
 * are those of shadow::HostMapper. [BQL] for all; none may call the shadow. */
typedef struct UmbraHostMapper {
    void* opaque;
    /* The device's source-id, as the guest has numbered the buses now. */
    uint16_t (*source)(void* opaque);
    /* Maps in order until one fails. Returns how many were mapped; sets `*error` to a positive
     * errno value if one failed, and leaves it alone otherwise. */
    size_t (*map)(void* opaque, const UmbraHostMapping* mappings, size_t count, int* error);
    /* Returns 0 or a positive errno value. */
    int (*unmap)(void* opaque, uint64_t iova, uint64_t bytes);
    /* The mode has changed, or the device was added. Under another mode than `translated` nothing
     * is mapped any more, and under `translated` nothing is mapped yet (shadow::Device). */
    void (*set_mode)(void* opaque, UmbraDmaMode mode);
    /* The IOVAs that the host can map, in any order, copied when the device is added. With a count
     * of 0 nobody knows of any limit. */
    const UmbraIovaRange* usable;
    size_t usable_count;
    /* A mapping for writes alone lets reads through as well. */
    bool write_implies_read;
} UmbraHostMapper;

/* A device in the shadow. */
typedef struct UmbraShadowDevice UmbraShadowDevice;

/* Adds a device: `mapper` (copied) is given the mappings of the device from here on. The caller
 * owns the device and ends it with umbra_shadow_remove(). [BQL] */
UmbraShadowDevice* umbra_shadow_add(UmbraUnit* unit, const UmbraHostMapper* mapper) UMBRA_NOEXCEPT;
/* Unmaps everything of the device and frees it. [BQL] */
void umbra_shadow_remove(UmbraUnit* unit, UmbraShadowDevice* device) UMBRA_NOEXCEPT;
/* The guest has numbered buses anew: each device gets the mappings of its new source-id. [BQL] */
void umbra_shadow_sources_changed(UmbraUnit* unit) UMBRA_NOEXCEPT;
/* Does all work that is left over. Called while the unit hands an invalidation on, does nothing:
 * that work is done before the guest sees the invalidation completed. [BQL] */
void umbra_shadow_settle(UmbraUnit* unit) UMBRA_NOEXCEPT;
/* The device's mapper holds nothing any more: everything is mapped again. [BQL] */
void umbra_shadow_replay(UmbraUnit* unit, UmbraShadowDevice* device) UMBRA_NOEXCEPT;

#ifdef __cplusplus
}
#endif

/* NOLINTEND(modernize-deprecated-headers,modernize-use-using) */

#endif
