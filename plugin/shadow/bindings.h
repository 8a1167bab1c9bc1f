// SPDX-License-Identifier: GPL-2.0-or-later
//
// The host bindings of one guest domain, one for each of its devices. A delta is carried out on all
// of them, and leaves that any of them misses are tried again.
//
// Two answers are remembered: whether anything is missing, and whether anything is stuck. Most
// syncs find neither and nothing to carry out, and so touch no binding; such a sync costs the same
// for any number of devices. After a look at the bindings, only a host call can turn an answer from
// "no" to "yes". A "yes" can last until the next look although the last such leaf has gone.
//
// Threading: one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "plugin/shadow/host_binding.h"
#include "plugin/shadow/range_list.h"
#include "plugin/shadow/slice.h"

namespace umbra::shadow {

class Bindings {
  public:
    // How far a job has come with the leaves that are missing.
    struct RetryProgress {
        std::size_t binding = 0;
        // 0: lost leaves, wherever they are. Then the ranges of the job. Last: leaves that wait for
        // room, wherever they are.
        std::size_t range = 0;
        HostBinding::RetryPass pass{};
    };

    // The binding stays the caller's. The caller tells it that it comes or goes, and then look()s.
    void add(HostBinding& binding);
    void remove(HostBinding& binding);
    [[nodiscard]] const std::vector<HostBinding*>& list() const { return list_; }

    // The answers of the last look. A walk of tables has pending deltas that can change them, so it
    // asks its DeltaBuilder instead.
    [[nodiscard]] bool any_missing() const { return any_missing_; }
    [[nodiscard]] bool any_stuck() const { return any_stuck_; }
    void look();

    // Whether all hosts grant reads wherever they grant writes. Where only some do, all are asked
    // for what the guest grants.
    [[nodiscard]] bool write_implies_read() const;

    // ---- Work of a job ----

    // A job begins. Each binding is told so before the first host call that the job makes.
    void begin_job() { begun_ = false; }
    // Tries again to unmap what is stuck in `ranges`.
    void retry_unmaps(const RangeList& ranges, Slice& slice);
    // Maps the leaves that were put off. False if it stopped for the time.
    [[nodiscard]] bool map_put_off(Slice& slice);
    // Tries again to map the leaves missing in `ranges`, all that are lost, and after an unmap all
    // that wait for room. False if it stopped for the time; then call again with the same
    // `progress`.
    [[nodiscard]] bool retry_maps(const RangeList& ranges, RetryProgress& progress, Slice& slice);
    // Carries out `delta`. `plan` is made of its removals.
    void execute(const Plan& plan, const Delta& delta, Slice& slice);

    // ---- Leaves ----

    // Whether any binding misses the leaf.
    [[nodiscard]] bool misses(LeafRef leaf) const;
    // Whether any binding cannot map some of `range`.
    [[nodiscard]] bool any_hole(IovaRange range) const;
    // Whether any binding has something mapped around a hole of the host's own.
    [[nodiscard]] bool any_host_hole() const;
    // HostBinding::removing() and merged() of each binding.
    void removing(LeafRef leaf, std::uint64_t mappings, std::uint64_t mapped_bytes);
    void merged(std::uint64_t before, std::uint64_t after);

  private:
    void begin_once();

    std::vector<HostBinding*> list_;
    bool any_missing_ = false;
    bool any_stuck_ = false;
    bool begun_ = false;
};

}  // namespace umbra::shadow
