// SPDX-License-Identifier: GPL-2.0-or-later
//
// Gathers what a unit and its shadow have counted into one snapshot (umbra.proto).
#pragma once

#include <cstddef>
#include <cstdint>

#include "plugin/bridge/statistics.h"
#include "plugin/shadow/manager.h"
#include "plugin/vtd/counters.h"
#include "snapshot_types.h"

namespace umbra::bridge {

// Elements that each list of a snapshot has at most: a guest that uses every domain-id makes
// snapshots neither slow nor longer than their readers take.
inline constexpr std::size_t kMostListed = 1024;

// When a snapshot was taken, and since when it counts: as the fields of umbra.proto's Snapshot.
struct SnapshotTimes {
    std::uint64_t taken_unix_ns = 0;
    std::uint64_t taken_ns = 0;
    std::uint64_t counting_since_ns = 0;
};

[[nodiscard]] telemetry::snapshot::Snapshot take_snapshot(const UmbraSnapshotStamp& stamp,
                                                          const SnapshotTimes& times,
                                                          const vtd::Counters& counters,
                                                          const shadow::Manager& manager);

}  // namespace umbra::bridge
