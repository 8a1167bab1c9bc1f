// SPDX-License-Identifier: GPL-2.0-or-later
//
// The IOVAs that cannot be mapped for one device:
//
//   the interrupt range   no DMA reaches it and misses a mapping, on any host (specification 3.14)
//   a host hole           what else the host's IOMMU reserves, or cannot reach. DMA of the guest
//                         to such an address fails
//
// A host refuses a mapping that touches such a range as a whole. So mappings are cut around it.
//
// Threading: constant once made.
#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include "plugin/vtd/types.h"

namespace umbra::shadow {

class IovaHoles {
  public:
    // `host` may be in any order, and may overlap each other and the interrupt range.
    explicit IovaHoles(std::span<const IovaRange> host = {});

    [[nodiscard]] bool overlaps(IovaRange range) const {
        const auto found = first_from(range.first);
        return found != holes_.end() && found->range.first <= range.last;
    }
    // The first part of `range` that lies in a host hole; none if there is none.
    [[nodiscard]] std::optional<IovaRange> host_hole_in(IovaRange range) const;
    // Calls `visit(IovaRange)` for each part of `range` that can be mapped, in order.
    template <class Visit>
    void visit_usable(IovaRange range, Visit&& visit) const {
        Iova from = range.first;
        for (auto hole = first_from(from); hole != holes_.end() && hole->range.first <= range.last;
             ++hole) {
            if (hole->range.first > from) {
                visit(IovaRange{from, hole->range.first - 1});
            }
            if (hole->range.last >= range.last) {
                return;
            }
            from = hole->range.last + 1;
        }
        visit(IovaRange{from, range.last});
    }

  private:
    struct Hole {
        IovaRange range;
        bool interrupts = false;  // the interrupt range, and no host hole
    };

    // The first hole that ends at `iova` or after it.
    [[nodiscard]] std::vector<Hole>::const_iterator first_from(Iova iova) const {
        return std::lower_bound(
            holes_.begin(), holes_.end(), iova,
            [](const Hole& hole, Iova address) { return hole.range.last < address; });
    }

    std::vector<Hole> holes_;  // ascending, without overlap
};

}  // namespace umbra::shadow
