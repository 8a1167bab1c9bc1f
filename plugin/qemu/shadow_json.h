// SPDX-License-Identifier: GPL-2.0-or-later
//
// The shadow's counters and its verification as JSON.
//
// Member "shadow" of the device's "statistics" property; a DIRECTION is {"calls", "bytes",
// "failures", "retries"}, a LATENCY {"count", "mean", "p50", "p90", "p99", "max"} in nanoseconds:
//
//   {"syncs": {"global", "domain", "page", "context", "attach", "replay", "memory"},
//    "tables-compared", "tables-skipped", "entries-changed", "pages-mapped", "pages-unmapped",
//    "invalid-entries", "not-ram", "refused-mappings", "refused-tables", "loops",
//    "tables", "leaves", "leaves-peak", "mirror-bytes",
//    "map": DIRECTION, "unmap": DIRECTION, "splits", "live-mappings", "live-mappings-peak",
//    "pinned-bytes", "missing-leaves",
//    "latency": {"page": {"compare": LATENCY, "host": LATENCY, "total": LATENCY}, …},
//    "lock-hold": LATENCY,
//    "domains": [{"domain", "devices", and the members of the unit from "syncs" to
//                 "missing-leaves"}],
//    "devices": [{"source", "mode": "translated", "domain", "attaches", "detaches", and the members
//                 of the unit from "map" to "missing-leaves"}]}
//
// Property "verify": {"clean", "complete", "domains", "devices", "pages-checked", "errors",
// "pending", "differences": [{"kind": "error"|"pending", "domain", "source", "iova", "bytes",
// "expected": SIDE, "actual": SIDE}]}, SIDE being {"guest", "access": "none"|"read"|"write"|
// "read-write"}; addresses are strings, "0x…".
#pragma once

#include <string>

#include "plugin/shadow/manager.h"

namespace umbra {

[[nodiscard]] std::string shadow_statistics_json(const shadow::Manager& manager);
[[nodiscard]] std::string verification_json(const shadow::Verification& verification);

}  // namespace umbra
