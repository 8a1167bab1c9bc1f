// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/stuck_unmaps.h"

#include <algorithm>

namespace umbra::shadow {

bool StuckUnmaps::overlaps(IovaRange range) const {
    return std::any_of(stretches_.begin(), stretches_.end(),
                       [&](const Stretch& stretch) { return range.overlaps(stretch.range); });
}

StuckUnmaps::Mappings StuckUnmaps::mappings() const {
    Mappings sum;
    for (const Stretch& stretch : stretches_) {
        sum.count += stretch.mappings.count;
        sum.bytes += stretch.mappings.bytes;
    }
    return sum;
}

StuckUnmaps::Mappings StuckUnmaps::take_out(IovaRange range) {
    Mappings gone;
    for (std::size_t i = 0; i < stretches_.size();) {
        Stretch& stretch = stretches_[i];
        if (!range.overlaps(stretch.range)) {
            ++i;
            continue;
        }
        const bool left_before = stretch.range.first < range.first;
        const bool left_after = stretch.range.last > range.last;
        if (left_before && left_after) {
            // The mappings stay counted for the first of the two stretches.
            const Stretch after = {{range.last + 1, stretch.range.last}, {}, stretch.round};
            stretch.range.last = range.first - 1;
            stretches_.push_back(after);
            ++i;
        } else if (left_before) {
            stretch.range.last = range.first - 1;
            ++i;
        } else if (left_after) {
            stretch.range.first = range.last + 1;
            ++i;
        } else {
            gone.count += stretch.mappings.count;
            gone.bytes += stretch.mappings.bytes;
            stretch = stretches_.back();
            stretches_.pop_back();
        }
    }
    return gone;
}

}  // namespace umbra::shadow
