// SPDX-License-Identifier: GPL-2.0-or-later
//
// The account of what a host mapper may hold for the shadow. It follows the calls that were made
// and their results, and nothing else: neither guest tables, nor the mirror, nor a counter.
//
// The account is one range, so that a call costs two comparisons and no memory. The range may
// include holes; it never leaves out a mapping that the host holds. So "nothing" is certain, and an
// unmap of the whole range leaves nothing and cuts no mapping in two.
//
// Threading: one thread at a time.
#pragma once

#include <algorithm>

#include "plugin/vtd/types.h"

namespace umbra::shadow {

class HostAccount {
  public:
    // A map of all of `range` succeeded, in one call or several.
    void mapped(IovaRange range) {
        range_ = empty() ? range
                         : IovaRange{std::min(range_.first, range.first),
                                     std::max(range_.last, range.last)};
    }
    // An unmap of all of `range` succeeded.
    void unmapped(IovaRange range) {
        const bool at_start = range.first <= range_.first;
        const bool at_end = range.last >= range_.last;
        if (at_start && at_end) {
            clear();
        } else if (at_start && range.last >= range_.first) {
            range_.first = range.last + 1;
        } else if (at_end && range.first <= range_.last) {
            range_.last = range.first - 1;
        }
    }
    // The host lost everything.
    void clear() { range_ = kNothing; }

    // Whether the host certainly holds nothing.
    [[nodiscard]] bool empty() const { return range_.first > range_.last; }
    // Everything that the host may hold lies in here. Not for an empty account.
    [[nodiscard]] IovaRange range() const { return range_; }

  private:
    static constexpr IovaRange kNothing{Iova(1), Iova(0)};
    IovaRange range_ = kNothing;
};

}  // namespace umbra::shadow
