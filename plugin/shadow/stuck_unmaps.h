// SPDX-License-Identifier: GPL-2.0-or-later
//
// The stretches of IOVAs whose unmap the host refused. Some of what was mapped there may still be
// mapped, so the device may still reach it, until a later unmap of the stretch succeeds.
//
// Stretches may overlap. Each knows how many mappings are counted for it; the caller keeps the
// counters.
//
// Threading: one thread at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "plugin/vtd/types.h"

namespace umbra::shadow {

class StuckUnmaps {
  public:
    // Mappings of the host, and their bytes.
    struct Mappings {
        std::uint64_t count = 0;
        std::uint64_t bytes = 0;

        friend bool operator==(const Mappings&, const Mappings&) = default;
    };

    [[nodiscard]] bool empty() const { return stretches_.empty(); }
    [[nodiscard]] std::size_t stretches() const { return stretches_.size(); }
    // `range` is not empty; `mappings` are those that were mapped in it.
    void add(IovaRange range, Mappings mappings) { stretches_.push_back({range, mappings}); }
    void clear() { stretches_.clear(); }

    [[nodiscard]] bool overlaps(IovaRange range) const;
    // All mappings that are counted for a stretch.
    [[nodiscard]] Mappings mappings() const;
    // Calls `visit(IovaRange)` for each stretch, in no order.
    template <class Visit>
    void visit(Visit&& visit) const {
        for (const Stretch& stretch : stretches_) {
            visit(stretch.range);
        }
    }

    // An unmap or a map of `range` succeeded, so the host has no earlier mapping there. Takes the
    // range out of every stretch, and returns the mappings of the stretches that are gone
    // altogether.
    [[nodiscard]] Mappings take_out(IovaRange range);

    // Tries each stretch that overlaps `range` once, until `most_failures` have failed. The next
    // call then begins with the stretches that this one did not come to. `unmap(IovaRange)` returns
    // whether the host's unmap succeeded, and has called take_out() if so. Returns whether any
    // unmap succeeded.
    template <class Unmap>
    bool retry(IovaRange range, unsigned most_failures, Unmap&& unmap) {
        bool any = false;
        unsigned failures = 0;
        ++round_;
        for (std::size_t i = 0; i < stretches_.size();) {
            Stretch& stretch = stretches_[i];
            if (stretch.round == round_ || !range.overlaps(stretch.range)) {
                ++i;
                continue;
            }
            stretch.round = round_;
            if (unmap(IovaRange(stretch.range))) {
                // take_out() may have removed or split other stretches, so indexes do not hold.
                any = true;
                i = 0;
            } else if (++failures == most_failures) {
                std::rotate(stretches_.begin(),
                            stretches_.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                            stretches_.end());
                break;
            }
        }
        return any;
    }

  private:
    struct Stretch {
        IovaRange range;
        Mappings mappings;
        unsigned round = 0;  // the last round of retries that tried the stretch
    };

    std::vector<Stretch> stretches_;
    unsigned round_ = 0;
};

}  // namespace umbra::shadow
