// SPDX-License-Identifier: GPL-2.0-or-later
//
// One device's binding to its host mapper. The binding carries out the deltas of the device's
// domain, and knows how the host's mappings differ from the domain's mirror.
//
//   mapped on the host = leaves of the mirror - holes - missing + stuck
//
//   holes     IOVAs that this host cannot map. A leaf, or a run, that reaches into one is mapped in
//             pieces around it, and is as good as mapped
//   missing   leaves that the host refused, or was not asked for yet. A device that has just
//             come to the domain misses every leaf
//   lost      missing leaves that had been mapped, and had to go for a moment only: the rests of a
//             split, or leaves whose RAM moved
//   put off   missing leaves for which there was no time. A sync does not end before the host was
//             asked for them
//   stuck     stretches whose unmap the host refused. Something may still be mapped there
//
// Every sync of the domain tries lost leaves again, because the guest changed nothing and will not
// invalidate them. A sync tries other missing leaves and stuck stretches again if it concerns them.
//
// HostCalls makes the calls and knows what is stuck. MissingLeaves is the set of missing leaves.
//
// Threading: one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "counter_types.h"
#include "plugin/shadow/clock.h"
#include "plugin/shadow/cut_mappings.h"
#include "plugin/shadow/delta.h"
#include "plugin/shadow/host_calls.h"
#include "plugin/shadow/host_mapper.h"
#include "plugin/shadow/iova_holes.h"
#include "plugin/shadow/mirror.h"
#include "plugin/shadow/missing_leaves.h"
#include "plugin/shadow/planner.h"
#include "plugin/shadow/ram_snapshot.h"
#include "plugin/shadow/refusal.h"
#include "plugin/shadow/trouble_log.h"

namespace umbra::shadow {

class HostBinding {
  public:
    // All outlive the binding.
    HostBinding(HostMapper& mapper, telemetry::HostCounters& device, telemetry::HostCounters& unit);
    HostBinding(const HostBinding&) = delete;
    HostBinding& operator=(const HostBinding&) = delete;

    // The device comes to a domain, and misses every leaf of `mirror`. All arguments outlive the
    // device's stay in the domain.
    void join(const Mirror& mirror, const RamSnapshot& ram, TroubleLog& log,
              telemetry::HostCounters& domain);
    // The device leaves the domain. Unmaps everything that the host may hold; a stretch whose unmap
    // the host refuses stays stuck.
    void leave();
    // The host lost everything: every leaf is missing, and nothing is stuck.
    void forget();

    // A sync begins. Calls that failed in the sync before are worth another try.
    void begin() {
        calls_.begin();
        had_bad_leaves_ = missing_.any_bad();
    }
    // Carries out a delta. When the host has no more room (see refusal.h), the other leaves are
    // left missing without a call: tens of thousands of leaves beyond a limit must not cost as many
    // calls. Maps for which there is no time are put off.
    void execute(const Plan& plan, const Delta& delta, Deadline& deadline);

    // Maps the leaves that were put off, as execute() would have done. False if there was no time
    // for all.
    [[nodiscard]] bool map_put_off(Deadline& deadline);

    // Tries again to unmap the stuck stretches in `range`. True if any stretch was unmapped; lost
    // leaves may then be unmapped as well.
    bool retry_unmaps(IovaRange range);
    // How far a pass over missing leaves has come.
    struct RetryPass {
        bool bad_leaves_done = false;  // the pass is through with known bad addresses
        MissingLeaves::Pass leaves{};
    };
    // Maps missing leaves in `range`. Gives up when the host has no more room; of leaves that were
    // refused before for their addresses, a pass tries a few (see refusal.h). A later pass goes on
    // from where this one gave up. False if there was no time for all; then call again with the
    // same `pass`.
    [[nodiscard]] bool retry_maps(IovaRange range, RetryPass& pass, Deadline& deadline);
    // The same for all lost leaves.
    [[nodiscard]] bool retry_lost(RetryPass& pass, Deadline& deadline);
    // If an unmap has made room: the same for all leaves that wait for it.
    [[nodiscard]] bool use_room(RetryPass& pass, Deadline& deadline);

    [[nodiscard]] bool has_lost() const { return missing_.any_lost(); }
    [[nodiscard]] bool has_put_off() const { return missing_.any_put_off(); }
    [[nodiscard]] bool is_put_off(LeafRef leaf) const { return missing_.is_put_off(leaf); }
    [[nodiscard]] bool has_missing() const { return !missing_.empty(); }
    [[nodiscard]] bool has_stuck() const { return !calls_.stuck().empty(); }
    // How many leaves are missing, and stretches stuck.
    [[nodiscard]] std::uint64_t trouble() const {
        return missing_.size() + calls_.stuck().stretches();
    }
    // Whether anything is mapped around a hole of the host's own.
    [[nodiscard]] bool has_host_holes() const { return cut_.any_host_hole(); }
    [[nodiscard]] bool is_missing(LeafRef leaf) const { return missing_.has(leaf); }
    // `leaf` is about to leave the mirror. The coming removal counts `mappings` and `mapped_bytes`
    // for the leaf. A missing leaf leaves the set of missing leaves.
    void removing(LeafRef leaf, std::uint64_t mappings, std::uint64_t mapped_bytes);
    // Leaves at which `before` host mappings began became one leaf that counts as `after` mappings.
    // No host call was made.
    void merged(std::uint64_t before, std::uint64_t after);

    // Calls `visit` for every mapping that the host has by the binding's own account, in order of
    // IOVA. For mappers that cannot list their mappings.
    void visit_mappings(const HostMapper::Visitor& visit) const;
    // Calls `visit(IovaRange)` for each stuck stretch.
    template <class Visit>
    void visit_stuck(Visit&& visit) const {
        calls_.stuck().visit(visit);
    }
    [[nodiscard]] HostMapper& mapper() const { return calls_.mapper(); }
    [[nodiscard]] const IovaHoles& holes() const { return holes_; }

  private:
    using Kind = MissingLeaves::Kind;
    using Which = MissingLeaves::Which;

    // ---- Unmaps ----

    void unmap_call(const Plan& plan, const UnmapCall& call);
    void unmapped(const Plan& plan, const UnmapPart& part);
    void refused(const Plan& plan, const UnmapPart& part, int error);
    // The host refused to unmap `range`, in which `mappings` were.
    void add_stuck(IovaRange range, StuckUnmaps::Mappings mappings, int error);
    // Unmaps everything that the host may hold: in one call or, if the host refuses that call, each
    // mapping by itself.
    void unmap_everything();

    // ---- Maps ----

    // The mirror's leaves in [first, end), of one run, as one mapping; 0 bytes if they do not lie
    // in one stretch of RAM.
    [[nodiscard]] HostMapping mapping_of(LeafRef first, Iova end) const;
    // Reports the map if the host refuses it.
    HostResult map(const HostMapping& mapping);
    // The host refused to map the leaves in `range`.
    void add_missing(IovaRange range, Kind kind, HostResult refusal);
    void report(const HostMapping& refused, int error);
    // The same for a run that lies in one stretch of RAM and can reach into a hole.
    HostResult map_around_holes(const HostMapping& run);
    // Maps all pieces of the run of `bytes` from `first` on, or none of them. A run of one leaf can
    // lie in several stretches of RAM.
    HostResult map_pieces(LeafRef first, std::uint64_t bytes);
    // How many of `mappings`, from the first one on, reach into no hole.
    [[nodiscard]] std::size_t clear_of_holes(std::span<const HostMapping> mappings) const;
    void map_additions(const Delta& delta, Deadline& deadline);
    // Each leaf is mapped or missing afterwards. All lie in one stretch of RAM each.
    void map_each(std::span<const HostMapping> mappings, Kind kind, Deadline& deadline);
    // The same for leaves that reach into no hole.
    void map_whole(std::span<const HostMapping> mappings, Kind kind, Deadline& deadline);
    void map_in_pieces(const HostMapping& run, Kind kind, Deadline& deadline);
    // Takes note of a map that is not tried: its leaves are missing, or put off.
    void pass_over(const HostMapping& mapping, Kind kind);

    // ---- Retries ----

    [[nodiscard]] bool retry(Which which, IovaRange range, MissingLeaves::Pass& pass,
                             Deadline& deadline);
    // Whether a pass over `which` leaves ends with the refusal of `run`.
    [[nodiscard]] bool ends_pass(Which which, HostResult refusal, IovaRange run,
                                 MissingLeaves::Pass& pass);
    // Tries to map the run from `first` to `end`.
    HostResult try_run(LeafRef first, Iova end);

    void apply() { calls_.tally().apply(missing_.size()); }

    HostCalls calls_;
    const IovaHoles holes_;
    CutMappings cut_;
    MissingLeaves missing_;
    bool first_pass_ = false;      // the missing leaves were not tried yet
    bool had_bad_leaves_ = false;  // when the sync under way began
    // The domain's; null while the device is in no domain.
    const Mirror* mirror_ = nullptr;
    const RamSnapshot* ram_ = nullptr;
    TroubleLog* log_ = nullptr;
};

}  // namespace umbra::shadow
