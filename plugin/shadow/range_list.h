// SPDX-License-Identifier: GPL-2.0-or-later
//
// The IOVAs that a sync concerns, as a list of ranges. They are gathered in the order in which the
// guest names them; then normalise() makes them ascend and lie apart, so that one pass over the
// tables serves them all. Bounded: a list of too many ranges becomes everything, because one look
// at all tables is cheaper than very many at few.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "plugin/vtd/types.h"

namespace umbra::shadow {

class RangeList {
  public:
    static constexpr std::size_t kCapacity = 1024;

    [[nodiscard]] bool empty() const { return ranges_.empty(); }
    [[nodiscard]] std::size_t size() const { return ranges_.size(); }
    [[nodiscard]] IovaRange operator[](std::size_t index) const { return ranges_[index]; }
    [[nodiscard]] bool everything() const {
        return ranges_.size() == 1 && ranges_.front() == IovaRange::everything();
    }

    // Memory is kept.
    void clear() { ranges_.clear(); }
    void add(IovaRange range) {
        if (!ranges_.empty() && touch(ranges_.back(), range)) {
            ranges_.back() = hull(ranges_.back(), range);
        } else if (ranges_.size() < kCapacity) {
            ranges_.push_back(range);
        } else {
            ranges_.assign(1, IovaRange::everything());
        }
    }
    // Makes one reach further, into its neighbours as may be.
    void widen(std::size_t index, IovaRange with) { ranges_[index] = hull(ranges_[index], with); }
    void normalise() {
        if (ranges_.size() < 2) {
            return;
        }
        const auto before = [](IovaRange a, IovaRange b) { return a.first < b.first; };
        if (!std::is_sorted(ranges_.begin(), ranges_.end(), before)) {
            std::sort(ranges_.begin(), ranges_.end(), before);
        }
        std::size_t last = 0;
        for (std::size_t next = 1; next < ranges_.size(); ++next) {
            if (touch(ranges_[last], ranges_[next])) {
                ranges_[last] = hull(ranges_[last], ranges_[next]);
            } else {
                ranges_[++last] = ranges_[next];
            }
        }
        ranges_.resize(last + 1);
    }

    static IovaRange hull(IovaRange a, IovaRange b) {
        return {std::min(a.first, b.first), std::max(a.last, b.last)};
    }

  private:
    // Whether nothing lies between the two.
    static bool touch(IovaRange a, IovaRange b) {
        return !(a.first > b.last && a.first - b.last > 1) &&
               !(b.first > a.last && b.first - a.last > 1);
    }

    std::vector<IovaRange> ranges_;
};

}  // namespace umbra::shadow
