// SPDX-License-Identifier: GPL-2.0-or-later
//
// The calls to one device's host mapper, and what their results say: what the host may hold, which
// unmaps the host refused, and whether asking for more maps is worth a call.
//
// Threading: one thread at a time.
#pragma once

#include <cstdint>
#include <span>

#include "plugin/shadow/host_account.h"
#include "plugin/shadow/host_mapper.h"
#include "plugin/shadow/host_tally.h"
#include "plugin/shadow/refusal.h"
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
    // The same for the first pieces of a leaf, of which a later piece was refused. No room comes
    // back by it.
    [[nodiscard]] HostResult take_back(IovaRange range);
    [[nodiscard]] HostResult map(const HostMapping& mapping);
    // Makes `mappings` (in order of IOVA, not empty) until one fails. `bytes` is their total size.
    [[nodiscard]] MapProgress map_all(std::span<const HostMapping> mappings, std::uint64_t bytes);

    // The host lost everything that it held.
    void lost_everything();

    // ---- Whether to go on ----

    // A sync begins: calls that failed in the sync before are worth another try.
    void begin() {
        no_memory_in_row_ = 0;
        limit_hit_ = false;
    }
    // The host said that it takes no more mappings, and nothing was unmapped since.
    [[nodiscard]] bool limit_hit() const { return limit_hit_; }
    // Nothing is to be gained by asking for new mappings.
    [[nodiscard]] bool gave_up() const {
        return limit_hit_ || no_memory_in_row_ >= kMostNoMemoryInRow;
    }
    // The host had no room for a mapping, and something was unmapped since.
    [[nodiscard]] bool room_came_back() const { return room_came_back_; }
    // The leaves that wait for room were tried. Some of them may be waiting still.
    void room_is_used(bool some_wait) {
        wants_room_ = some_wait;
        room_came_back_ = false;
    }

  private:
    static constexpr unsigned kMostNoMemoryInRow = 256;

    void mapped(std::span<const HostMapping> mappings, std::uint64_t bytes);
    void not_mapped(int error) {
        tally_.map_calls(1);
        tally_.map_failure();
        switch (refusal_of(error)) {
            case Refusal::full:
                limit_hit_ = true;
                wants_room_ = true;
                break;
            case Refusal::no_memory:
                ++no_memory_in_row_;
                wants_room_ = true;
                break;
            case Refusal::bad_address:
                break;
        }
    }
    void made_room() {
        limit_hit_ = false;
        no_memory_in_row_ = 0;
        room_came_back_ = wants_room_;
    }
    void take_out_of_stuck(IovaRange range) {
        const StuckUnmaps::Mappings gone = stuck_.take_out(range);
        tally_.went(gone.count, gone.bytes);
    }

    HostMapper& mapper_;
    HostTally tally_;
    HostAccount held_;
    StuckUnmaps stuck_;
    unsigned no_memory_in_row_ = 0;
    bool limit_hit_ = false;
    bool wants_room_ = false;  // a map was refused for want of room
    bool room_came_back_ = false;
};

inline HostResult HostCalls::unmap(IovaRange range) {
    const HostResult result = take_back(range);
    if (result.ok()) {
        made_room();
    }
    return result;
}

inline HostResult HostCalls::take_back(IovaRange range) {
    tally_.unmap_call();
    const HostResult result = mapper_.unmap(range.first, range.last - range.first + 1);
    if (!result.ok()) {
        tally_.unmap_failure();
        return result;
    }
    held_.unmapped(range);
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
    no_memory_in_row_ = 0;
    held_.mapped({mappings.front().iova, mappings.back().end() - 1});
    // The host would have refused a map where an earlier mapping was left.
    for (std::size_t i = 0; i < mappings.size() && !stuck_.empty(); ++i) {
        take_out_of_stuck({mappings[i].iova, mappings[i].end() - 1});
    }
}

inline void HostCalls::lost_everything() {
    held_.clear();
    stuck_.clear();
    made_room();
    tally_.all_lost();
}

}  // namespace umbra::shadow
