// SPDX-License-Identifier: GPL-2.0-or-later
//
// What happened between two snapshots of one unit.
#pragma once

#include "snapshot_types.h"

namespace umbra::tools {

// The later snapshot, with what counts up reduced by the earlier one's; what is as of now stays.
// Elements of lists are matched by their keys, and new ones count from 0. If the statistics were
// cleared in between, or the unit is another one, everything counts from 0.
[[nodiscard]] telemetry::snapshot::Snapshot difference(const telemetry::snapshot::Snapshot& earlier,
                                                       const telemetry::snapshot::Snapshot& later);

// The time that `difference` is about; 0 if the two are not in order.
[[nodiscard]] double seconds_between(const telemetry::snapshot::Snapshot& earlier,
                                     const telemetry::snapshot::Snapshot& later);

}  // namespace umbra::tools
