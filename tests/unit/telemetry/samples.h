// SPDX-License-Identifier: GPL-2.0-or-later
//
// Snapshots to test with.
#pragma once

#include <cstdint>
#include <string>

#include "plugin/telemetry/histogram.h"
#include "snapshot_types.h"

namespace umbra::testing {

// Every field has a value of its own, none is 0; lists have two elements. Version and unit are
// right, times are in order.
[[nodiscard]] telemetry::snapshot::Snapshot filled_snapshot(std::uint64_t first = 1);

// A new unit's: nothing counted, no lists.
[[nodiscard]] telemetry::snapshot::Snapshot empty_snapshot();

// As in a file.
[[nodiscard]] std::string delimited(const telemetry::snapshot::Snapshot& snapshot);

}  // namespace umbra::testing
