/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The counters of a unit, and the check of its mappings on the host.
 */
#ifndef UMBRA_BRIDGE_STATISTICS_H
#define UMBRA_BRIDGE_STATISTICS_H

/* This file is C as well, so the advice for C++ does not apply.
 * NOLINTBEGIN(modernize-deprecated-headers,modernize-use-using) */

#include <stddef.h>
#include <stdint.h>

#include "plugin/bridge/bridge.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a snapshot says about itself (plugin/telemetry/umbra.proto). */
typedef struct UmbraSnapshotStamp {
    const char* unit;
    uint64_t sequence;
    uint64_t interval_ns;
    uint64_t dropped;
} UmbraSnapshotStamp;

/* A snapshot of the counters as one JSON object. Free it with umbra_string_free(). [BQL] */
char* umbra_unit_statistics(const UmbraUnit* unit, const UmbraSnapshotStamp* stamp) UMBRA_NOEXCEPT;
/* The same in binary form, preceded by its length, as files and streams have it: `*size` bytes in
 * all. Free it with umbra_string_free(). [BQL] */
char* umbra_unit_snapshot(const UmbraUnit* unit, const UmbraSnapshotStamp* stamp,
                          size_t* size) UMBRA_NOEXCEPT;
void umbra_unit_clear_statistics(UmbraUnit* unit) UMBRA_NOEXCEPT; /* [BQL] */

/* The guest's tables compared with the host's mappings, as one JSON object whose form
 * verification_json.h describes. Free it with umbra_string_free(). [BQL] */
char* umbra_unit_verify(const UmbraUnit* unit) UMBRA_NOEXCEPT;

void umbra_string_free(char* string) UMBRA_NOEXCEPT;

#ifdef __cplusplus
}
#endif

/* NOLINTEND(modernize-deprecated-headers,modernize-use-using) */

#endif
