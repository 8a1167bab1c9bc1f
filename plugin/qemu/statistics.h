// SPDX-License-Identifier: GPL-2.0-or-later
//
// A unit's counters as JSON, for people and programs that read the device's "statistics" property:
//
//   {"version": 1,
//    "invalidations": {"queue":     {"context-global": 1, "iotlb-page": 811, ... all kinds},
//                      "registers": {... the same kinds}},
//    "register-commands-refused": 0,
//    "queue": {"tail-writes": 410, "wait-descriptors": 410, "wait-status": 410,
//              "wait-interrupt": 0, "wait-fence": 0, "wait-status-lost": 0,
//              "errors": {"tail-out-of-range": 0, "fetch-failed": 0, "bad-type": 0,
//                         "reserved-field": 0}},
//    "faults": {"recorded": 0, "overflowed": 0, "collapsed": 0, "suppressed": 0,
//               "reasons": {"write-denied": 3, ... reasons that occurred}},
//    "iotlb": {"hits": 91042, "misses": 811},
//    "domains": [{"domain": 2, "iotlb-hits": 91042, "iotlb-misses": 811,
//                 "domain-invalidations": 0, "page-invalidations": 811,
//                 "pages-invalidated": 1622, "faults": 0}, ... domains that were in use],
//    "shadow": {... as shadow_json.h says}}
//
// Counts are since the unit was made or its statistics were last cleared; they do not migrate.
// "version" changes when a name goes or changes its meaning, not when one is added.
#pragma once

#include <string>
#include <string_view>

#include "plugin/vtd/counters.h"

namespace umbra {

// `shadow` is the JSON object for member "shadow".
[[nodiscard]] std::string statistics_json(const vtd::Counters& counters, std::string_view shadow);

}  // namespace umbra
