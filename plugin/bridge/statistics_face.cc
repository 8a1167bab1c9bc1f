// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/bridge/statistics.h"

#include <cstring>
#include <memory>
#include <string>

#include "plugin/bridge/assembly.h"
#include "plugin/bridge/snapshot.h"
#include "plugin/bridge/verification_json.h"
#include "plugin/telemetry/json.h"
#include "plugin/telemetry/wire.h"

namespace {

using std::chrono::steady_clock;
using std::chrono::system_clock;
using umbra::bridge::nanoseconds_of;
namespace snapshot = umbra::telemetry::snapshot;

// A copy for C code, which frees it with umbra_string_free().
char* copy_of(const std::string& text) {
    auto copy = std::make_unique<char[]>(text.size() + 1);
    std::memcpy(copy.get(), text.c_str(), text.size() + 1);
    return copy.release();
}

snapshot::Snapshot snapshot_of(const UmbraUnit& unit, const UmbraSnapshotStamp& stamp) {
    return umbra::bridge::take_snapshot(stamp,
                                        {.taken_unix_ns = nanoseconds_of<system_clock>(),
                                         .taken_ns = nanoseconds_of<steady_clock>(),
                                         .counting_since_ns = unit.counting_since_ns},
                                        unit.unit.counters(), unit.manager);
}

}  // namespace

extern "C" {

char* umbra_unit_statistics(const UmbraUnit* unit, const UmbraSnapshotStamp* stamp) noexcept {
    const snapshot::Snapshot taken = snapshot_of(*unit, *stamp);
    return copy_of(umbra::telemetry::to_json(snapshot::record(taken)));
}

char* umbra_unit_snapshot(const UmbraUnit* unit, const UmbraSnapshotStamp* stamp,
                          size_t* size) noexcept {
    const snapshot::Snapshot taken = snapshot_of(*unit, *stamp);
    const std::string bytes = umbra::telemetry::encode_delimited(snapshot::record(taken));
    *size = bytes.size();
    return copy_of(bytes);
}

void umbra_unit_clear_statistics(UmbraUnit* unit) noexcept {
    unit->unit.clear_counters();
    unit->manager.clear_counters();
    unit->counting_since_ns = nanoseconds_of<steady_clock>();
}

char* umbra_unit_verify(const UmbraUnit* unit) noexcept {
    return copy_of(umbra::bridge::verification_json(unit->manager.verify()));
}

void umbra_string_free(char* string) noexcept {
    const std::unique_ptr<char[]> owned(string);
}

}  // extern "C"
