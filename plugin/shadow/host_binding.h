// SPDX-License-Identifier: GPL-2.0-or-later
//
// One device's host mapper, and what is known about it beyond the mirror of its domain. Together
// they say what the host has mapped, from what was carried out and not from guest tables:
//
//   mapped = leaves of the mirror - missing + stuck
//
//   missing   leaves that the host refused, or that it was not asked for yet (a device that has
//             just come to the domain misses everything)
//   lost      those of them that had been mapped, and had to go for a moment only: what a split
//             leaves, or RAM that moves
//   put off   those of them for which there was no time; a sync does not end before it has asked
//             for them
//   stuck     stretches whose unmap the host refused: something may still be mapped there
//
// All are tried again: what is lost by every sync of the domain, since nothing in the guest changed
// that would make it invalidate just that; the rest by those that concern it. A coalesced run of
// leaves is missing, and lost, as a whole or not at all.
//
// Threading: one thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "counter_types.h"
#include "plugin/shadow/clock.h"
#include "plugin/shadow/delta.h"
#include "plugin/shadow/host_account.h"
#include "plugin/shadow/host_mapper.h"
#include "plugin/shadow/leaf_set.h"
#include "plugin/shadow/mirror.h"
#include "plugin/shadow/planner.h"
#include "plugin/shadow/ram_snapshot.h"
#include "plugin/shadow/trouble_log.h"

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
    // thousands of leaves must not cost as many calls. Maps for which there is no time are put off.
    void execute(const Plan& plan, const Delta& delta, Deadline& deadline);

    // Maps what was put off, as execute() would have. True unless it stopped for the time.
    [[nodiscard]] bool map_put_off(Deadline& deadline);

    // Unmaps again what is stuck in `range`. True if any of it went, perhaps together with what is
    // lost.
    bool retry_unmaps(IovaRange range);
    // How far a pass over what is missing has come.
    struct RetryPass {
        bool started = false;
        LeafSet::Place from = 0;  // where it began, if it is over everything
        unsigned part = 0;        // of the parts that it consists of
        LeafSet::Place next = 0;  // of the part under way
        LeafSet::Place last = 0;  // the same
        unsigned failures = 0;    // in a row
    };
    // Maps what is missing in `range`. Gives up at the host's limit, or after several runs in a row
    // that fail, to go on from there in a later pass: what makes one fail mostly makes all fail.
    // True unless it stopped for the time; then call again with the same `pass`.
    [[nodiscard]] bool retry_maps(IovaRange range, RetryPass& pass, Deadline& deadline);
    // The same for what is lost, wherever it is.
    [[nodiscard]] bool retry_lost(RetryPass& pass, Deadline& deadline);

    [[nodiscard]] bool has_lost() const { return !lost_.empty(); }
    [[nodiscard]] bool has_put_off() const { return !put_off_.empty(); }
    [[nodiscard]] bool is_put_off(LeafRef leaf) const { return put_off_.has(leaf); }
    [[nodiscard]] bool has_missing() const { return !missing_.empty(); }
    [[nodiscard]] bool has_stuck() const { return !stuck_.empty(); }
    [[nodiscard]] bool is_missing(LeafRef leaf) const { return missing_.has(leaf); }
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
    struct Stuck {
        Iova iova;
        std::uint64_t bytes = 0;
        std::uint64_t mappings = 0;
        std::uint64_t mapped_bytes = 0;
        unsigned round = 0;  // of retries, in which it was tried last
        [[nodiscard]] Iova end() const { return iova + bytes; }
        [[nodiscard]] IovaRange range() const { return {iova, iova + (bytes - 1)}; }
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
    void mapped(std::span<const HostMapping> mappings, std::uint64_t bytes);
    void not_mapped(const HostMapping& mapping, int error);
    void map_additions(const Delta& delta, Deadline& deadline);
    // Whether what is missing now was there before.
    enum class Missing : std::uint8_t { plain, lost };
    // Each is mapped or missing afterwards.
    void map_each(std::span<const HostMapping> mappings, Missing how, Deadline& deadline);
    void put_off(const HostMapping& mapping, Missing how);
    void count_new(bool ok) { failures_in_row_ = ok ? 0 : failures_in_row_ + 1; }
    // The host takes no more, so that nothing is to be gained by asking for new ones.
    [[nodiscard]] bool gave_up() const;
    [[nodiscard]] bool is_stuck(IovaRange range) const;
    void trim_stuck(Iova iova, std::uint64_t bytes);

    void mark_missing(LeafRef leaf);
    void mark_missing(Iova iova, std::uint64_t bytes, Missing how);
    void clear_missing(LeafRef leaf);
    void clear_missing(Iova iova, std::uint64_t bytes);
    void miss_everything();
    // A pass over those of `leaves` in `range`. One over everything begins at `from`, and leaves
    // there where it gave up.
    [[nodiscard]] bool retry(const LeafSet& leaves, IovaRange range, LeafSet::Place& from,
                             RetryPass& pass, Deadline& deadline);
    // A pass goes through one stretch of places after the other. Makes the one that is `part` the
    // pass's own; false if there is none any more.
    [[nodiscard]] bool start_part(IovaRange range, RetryPass& pass) const;
    // The next leaf of the pass that stands for its run; none when it is through.
    [[nodiscard]] LeafRef next_run(const LeafSet& leaves, IovaRange range, RetryPass& pass) const;
    // Tries the run from `first` to `end`.
    [[nodiscard]] bool try_run(LeafRef first, Iova end);
    [[nodiscard]] bool map_pieces(LeafRef leaf);

    HostMapper& mapper_;
    std::array<telemetry::HostCounters*, 3> sinks_;  // device, unit, domain (null without one)
    const Mirror* mirror_ = nullptr;
    const RamSnapshot* ram_ = nullptr;
    TroubleLog* log_ = nullptr;

    HostAccount held_;
    LeafSet missing_;
    LeafSet lost_;     // all of it is missing too
    LeafSet put_off_;  // the same
    // Where the next passes over everything begin.
    LeafSet::Place missing_from_ = 0;
    LeafSet::Place lost_from_ = 0;
    bool first_pass_ = false;  // what is missing was not tried yet
    unsigned failures_in_row_ = 0;
    bool limit_hit_ = false;  // ENOSPC, and nothing was unmapped since
    std::vector<Stuck> stuck_;
    unsigned unmap_round_ = 0;
    Tally tally_;
};

}  // namespace umbra::shadow
