// SPDX-License-Identifier: GPL-2.0-or-later
//
// The calls to one device's host mapper, and what their results say: what the host may hold, which
// unmaps the host refused, and whether asking for more maps is worth a call.
//
// Threading: one thread at a time.
#pragma once

#include <cerrno>
#include <cstdint>
#include <span>

#include "plugin/shadow/host_account.h"
#include "plugin/shadow/host_mapper.h"
#include "plugin/shadow/host_tally.h"
#include "plugin/shadow/stuck_unmaps.h"

namespace umbra::shadow {

class HostCalls {
  public:
    // The mapper and the counters outlive the object.
    HostCalls(HostMapper& mapper, telemetry::HostCounters& device, telemetry::HostCounters& unit)
        : mapper_(mapper), tally_(device, unit) {}

    [[nodiscard]] HostMapper& mapper() const { return mapper_; }
    [[nodiscard]] HostTally& tally() { return tally_; }
    [[nodiscard]] const HostAccount& held() const { return held_; }
    [[nodiscard]] StuckUnmaps& stuck() { return stuck_; }
    [[nodiscard]] const StuckUnmaps& stuck() const { return stuck_; }

    // ---- Calls ----

    // On success nothing is left in `range`. The caller counts the mappings that went. Those of
    // stuck stretches are counted here.
    [[nodiscard]] HostResult unmap(IovaRange range);
    [[nodiscard]] HostResult map(const HostMapping& mapping);
    // Makes `mappings` (in order of IOVA, not empty) until one fails. `bytes` is their total size.
    [[nodiscard]] MapProgress map_all(std::span<const HostMapping> mappings, std::uint64_t bytes);

    // The host lost everything that it held.
    void lost_everything();

    // ---- Whether to go on ----

    // A sync begins: calls that failed in the sync before are worth another try.
    void begin() {
        new_failures_in_row_ = 0;
        limit_hit_ = false;
    }
    // The outcome of a map that was not tried before.
    void count_new(bool ok) { new_failures_in_row_ = ok ? 0 : new_failures_in_row_ + 1; }
    // The host said that it takes no more mappings, and nothing was unmapped since.
    [[nodiscard]] bool limit_hit() const { return limit_hit_; }
    // Nothing is to be gained by asking for new mappings.
    [[nodiscard]] bool gave_up() const {
        return limit_hit_ || new_failures_in_row_ >= kMostNewFailuresInRow;
    }

  private:
    static constexpr unsigned kMostNewFailuresInRow = 64;

    void mapped(std::span<const HostMapping> mappings, std::uint64_t bytes);
    void not_mapped(int error) {
        tally_.map_calls(1);
        tally_.map_failure();
        limit_hit_ = limit_hit_ || error == ENOSPC;
    }
    void take_out_of_stuck(IovaRange range) {
        const StuckUnmaps::Mappings gone = stuck_.take_out(range);
        tally_.went(gone.count, gone.bytes);
    }

    HostMapper& mapper_;
    HostTally tally_;
    HostAccount held_;
    StuckUnmaps stuck_;
    unsigned new_failures_in_row_ = 0;
    bool limit_hit_ = false;
};

inline HostResult HostCalls::unmap(IovaRange range) {
    tally_.unmap_call();
    const HostResult result = mapper_.unmap(range.first, range.last - range.first + 1);
    if (!result.ok()) {
        tally_.unmap_failure();
        return result;
    }
    held_.unmapped(range);
    limit_hit_ = false;
    if (!stuck_.empty()) {
        take_out_of_stuck(range);
    }
    return result;
}

inline HostResult HostCalls::map(const HostMapping& mapping) {
    const HostResult result = mapper_.map(mapping);
    if (result.ok()) {
        mapped({&mapping, 1}, mapping.bytes);
    } else {
        not_mapped(result.error());
    }
    return result;
}

inline MapProgress HostCalls::map_all(std::span<const HostMapping> mappings, std::uint64_t bytes) {
    const MapProgress progress = mapper_.map_all(mappings);
    if (!progress.result.ok()) {
        for (const HostMapping& mapping : mappings.subspan(progress.mapped)) {
            bytes -= mapping.bytes;
        }
    }
    if (progress.mapped != 0) {
        mapped(mappings.first(progress.mapped), bytes);
    }
    if (!progress.result.ok()) {
        not_mapped(progress.result.error());
    }
    return progress;
}

inline void HostCalls::mapped(std::span<const HostMapping> mappings, std::uint64_t bytes) {
    tally_.map_calls(mappings.size());
    tally_.came(mappings.size(), bytes);
    held_.mapped({mappings.front().iova, mappings.back().end() - 1});
    // The host would have refused a map where an earlier mapping was left.
    for (std::size_t i = 0; i < mappings.size() && !stuck_.empty(); ++i) {
        take_out_of_stuck({mappings[i].iova, mappings[i].end() - 1});
    }
}

inline void HostCalls::lost_everything() {
    held_.clear();
    stuck_.clear();
    tally_.all_lost();
}

}  // namespace umbra::shadow
