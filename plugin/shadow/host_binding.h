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

#include <cstddef>
#include <cstdint>
#include <span>

#include "counter_types.h"
#include "plugin/shadow/clock.h"
#include "plugin/shadow/delta.h"
#include "plugin/shadow/host_calls.h"
#include "plugin/shadow/host_mapper.h"
#include "plugin/shadow/mirror.h"
#include "plugin/shadow/missing_leaves.h"
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
    void begin() { calls_.begin(); }
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
    using RetryPass = MissingLeaves::Pass;
    // Maps what is missing in `range`. Gives up at the host's limit, or after several runs in a row
    // that fail, to go on from there in a later pass: what makes one fail mostly makes all fail.
    // True unless it stopped for the time; then call again with the same `pass`.
    [[nodiscard]] bool retry_maps(IovaRange range, RetryPass& pass, Deadline& deadline);
    // The same for what is lost, wherever it is.
    [[nodiscard]] bool retry_lost(RetryPass& pass, Deadline& deadline);

    [[nodiscard]] bool has_lost() const { return missing_.any_lost(); }
    [[nodiscard]] bool has_put_off() const { return missing_.any_put_off(); }
    [[nodiscard]] bool is_put_off(LeafRef leaf) const { return missing_.is_put_off(leaf); }
    [[nodiscard]] bool has_missing() const { return !missing_.empty(); }
    [[nodiscard]] bool has_stuck() const { return !calls_.stuck().empty(); }
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
        calls_.stuck().visit(visit);
    }
    [[nodiscard]] HostMapper& mapper() const { return calls_.mapper(); }

  private:
    using Kind = MissingLeaves::Kind;
    using Which = MissingLeaves::Which;

    // ---- Unmaps ----

    void unmap_call(const Plan& plan, const UnmapCall& call);
    void unmapped(const Plan& plan, const UnmapPart& part);
    void refused(const Plan& plan, const UnmapPart& part, int error);
    // The host refused to unmap `range`, in which `mappings` were.
    void add_stuck(IovaRange range, StuckUnmaps::Mappings mappings, int error);
    // Unmaps everything that the host may hold, in one call, or each mapping by itself.
    void unmap_everything();

    // ---- Maps ----

    // The mirror's leaves in [first, end), of one run, as one mapping; 0 bytes if they do not lie
    // in one stretch of RAM.
    [[nodiscard]] HostMapping mapping_of(LeafRef first, Iova end) const;
    // A refused map is reported.
    [[nodiscard]] bool map(const HostMapping& mapping);
    void report(const HostMapping& refused, int error);
    // A leaf that does not lie in one stretch of RAM: all its pieces or none.
    [[nodiscard]] bool map_pieces(LeafRef leaf);
    void map_additions(const Delta& delta, Deadline& deadline);
    // Each is mapped or missing afterwards.
    void map_each(std::span<const HostMapping> mappings, Kind kind, Deadline& deadline);
    void map_in_pieces(const HostMapping& leaf, Kind kind, Deadline& deadline);
    // Maps that are not tried.
    void pass_over(const HostMapping& mapping, Kind kind);

    // ---- Retries ----

    [[nodiscard]] bool retry(Which which, IovaRange range, RetryPass& pass, Deadline& deadline);
    // Tries the run from `first` to `end`.
    [[nodiscard]] bool try_run(LeafRef first, Iova end);

    void apply() { calls_.tally().apply(missing_.size()); }

    HostCalls calls_;
    MissingLeaves missing_;
    bool first_pass_ = false;  // what is missing was not tried yet
    // Of the domain; null outside of one.
    const Mirror* mirror_ = nullptr;
    const RamSnapshot* ram_ = nullptr;
    TroubleLog* log_ = nullptr;
};

}  // namespace umbra::shadow
