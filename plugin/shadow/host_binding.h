// SPDX-License-Identifier: GPL-2.0-or-later
//
// One device's host mapper, and what is known about it beyond the mirror of its domain. Together
// they say what the host has mapped, from what was carried out and not from guest tables:
//
//   mapped = leaves of the mirror - missing + stuck
//
//   missing   leaves that the host refused, or that it was not asked for yet (a device that has
//             just come to the domain misses everything)
//   stuck     stretches whose unmap the host refused: something may still be mapped there
//
// Both are tried again. A coalesced run of leaves is missing as a whole or not at all.
//
// Threading: one thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "plugin/shadow/clock.h"
#include "plugin/shadow/delta.h"
#include "plugin/shadow/host_mapper.h"
#include "plugin/shadow/mirror.h"
#include "plugin/shadow/planner.h"
#include "plugin/shadow/ram_snapshot.h"
#include "plugin/shadow/trouble_log.h"
#include "plugin/telemetry/shadow_counters.h"

namespace umbra::shadow {

class HostBinding {
  public:
    // All outlive the binding.
    HostBinding(HostMapper& mapper, telemetry::HostCounters& device, telemetry::HostCounters& unit);
    HostBinding(const HostBinding&) = delete;
    HostBinding& operator=(const HostBinding&) = delete;

    // The device comes to a domain: every leaf of `mirror` is missing. All outlive the stay.
    void join(const Mirror& mirror, const RamSnapshot& ram, TroubleLog& log,
              telemetry::HostCounters& domain);
    // Unmaps everything that the domain mapped. What the host refuses stays stuck.
    void leave();
    // The host has nothing of it any more: every leaf is missing, nothing is stuck.
    void forget();

    // A sync begins: what failed in the one before is tried again.
    void begin() {
        failures_in_row_ = 0;
        limit_hit_ = false;
    }
    // Carries a delta out. After many failures in a row, or one that says that the host takes no
    // more mappings, the rest is left missing without asking it: a limit that is hit by tens of
    // thousands of leaves must not cost as many calls.
    void execute(const Plan& plan, const Delta& delta);

    // Unmaps again what is stuck in `range`.
    void retry_unmaps(IovaRange range);
    // How far a pass over everything that is missing has come.
    struct RetryPass {
        bool started = false;
        bool wrapped = false;
        std::uint64_t first = 0;
        std::uint64_t next = 0;
    };
    // Maps what is missing in `range`. Gives up at the host's limit, or after several failures in a
    // row, to go on from there in a later pass: what makes one fail mostly makes all fail. Stops at
    // `deadline_ns`. True unless it stopped for the time; then call again with the same `pass`.
    [[nodiscard]] bool retry_maps(IovaRange range, RetryPass& pass, const Clock& clock,
                                  std::uint64_t deadline_ns);

    [[nodiscard]] bool has_missing() const { return !missing_.empty(); }
    [[nodiscard]] bool has_stuck() const { return !stuck_.empty(); }
    [[nodiscard]] bool is_missing(LeafRef leaf) const {
        return !missing_.empty() && missing_bit(leaf);
    }
    // Told before leaves leave the mirror: a leaf that was missing is not any more, and will be
    // part of a removal all the same.
    void removing(LeafRef leaf, std::uint64_t mappings, std::uint64_t mapped_bytes);
    // Told when leaves that begin `before` host mappings become one leaf, that counts as `after`,
    // without any host call.
    void merged(std::uint64_t before, std::uint64_t after);

    // What the host has mapped by this account, in order of IOVA. For mappers that cannot tell.
    void visit_mappings(const HostMapper::Visitor& visit) const;
    // Stretches whose unmap the host refused.
    template <class Visit>
    void visit_stuck(Visit&& visit) const {
        for (const Stuck& stuck : stuck_) {
            visit(IovaRange{stuck.iova, stuck.iova + (stuck.bytes - 1)});
        }
    }
    [[nodiscard]] HostMapper& mapper() const { return mapper_; }

  private:
    // Orders tables by their first IOVA, and separates those that start at the same one.
    using TableKey = std::uint64_t;
    [[nodiscard]] static TableKey key_of(const Table& table) {
        return table.base.value() | table.level;
    }

    struct Stuck {
        Iova iova;
        std::uint64_t bytes = 0;
        std::uint64_t mappings = 0;
        std::uint64_t mapped_bytes = 0;
        [[nodiscard]] Iova end() const { return iova + bytes; }
    };

    // Changes of counters, collected over a call and then added to every sink.
    struct Tally {
        telemetry::HostCounters counts;
        std::int64_t live = 0;
        std::int64_t pinned = 0;
        std::int64_t missing = 0;
    };
    void apply();

    void unmap_call(const Plan& plan, const UnmapCall& call);
    void unmapped(const Plan& plan, const UnmapPart& part);
    void refused(const Plan& plan, const UnmapPart& part, int error);
    [[nodiscard]] HostResult unmap(Iova iova, std::uint64_t bytes);
    [[nodiscard]] bool map(const HostMapping& mapping);
    // The outcome of map calls.
    void mapped(std::span<const HostMapping> mappings);
    void not_mapped(const HostMapping& mapping, int error);
    void map_additions(const Delta& delta);
    // Each is mapped or missing afterwards.
    void map_each(std::span<const HostMapping> mappings);
    void count_new(bool ok) { failures_in_row_ = ok ? 0 : failures_in_row_ + 1; }
    // The host takes no more, so that nothing is to be gained by asking for new ones.
    [[nodiscard]] bool gave_up() const;
    void trim_stuck(Iova iova, std::uint64_t bytes);

    [[nodiscard]] bool missing_bit(LeafRef leaf) const;
    void mark_missing(LeafRef leaf);
    void mark_missing(Iova iova, std::uint64_t bytes);
    void clear_missing(LeafRef leaf);
    void clear_missing(Iova iova, std::uint64_t bytes);
    void miss_everything();
    [[nodiscard]] bool retry_table(TableKey key, IovaRange range, unsigned& failures);
    [[nodiscard]] bool map_run(LeafRef first, Iova end);
    [[nodiscard]] bool map_pieces(LeafRef leaf);

    HostMapper& mapper_;
    std::array<telemetry::HostCounters*, 3> sinks_;  // device, unit, domain (null without one)
    const Mirror* mirror_ = nullptr;
    const RamSnapshot* ram_ = nullptr;
    TroubleLog* log_ = nullptr;

    std::map<TableKey, EntryBitmap> missing_;
    TableKey retry_from_ = 0;
    bool first_pass_ = false;  // what is missing was not tried yet
    unsigned failures_in_row_ = 0;
    bool limit_hit_ = false;  // ENOSPC, and nothing was unmapped since
    std::vector<Stuck> stuck_;
    Tally tally_;
};

}  // namespace umbra::shadow
