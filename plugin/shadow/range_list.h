// SPDX-License-Identifier: GPL-2.0-or-later
//
// The IOVAs that a sync concerns, as a list of ranges.
//
// Ranges are added in the order in which the guest names them. normalise() then makes them ascend
// and lie apart, so that one pass over the tables serves them all. The list is bounded: too many
// ranges become one range over everything, because one look at all tables is cheaper than very many
// looks at a few.
//
// Each range knows the size of the smallest block that the guest named in it. The guest may have
// mapped the pages of one block together. Pages of two blocks it may have mapped separately.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "plugin/vtd/types.h"

namespace umbra::shadow {

class RangeList {
  public:
    static constexpr std::size_t kCapacity = 1024;

    [[nodiscard]] bool empty() const { return items_.empty(); }
    [[nodiscard]] std::size_t size() const { return items_.size(); }
    [[nodiscard]] IovaRange operator[](std::size_t index) const { return items_[index].range; }
    // Size of the smallest block in the range: in bytes, a power of two, at least a page.
    [[nodiscard]] std::uint64_t block(std::size_t index) const { return items_[index].block; }
    [[nodiscard]] bool everything() const {
        return items_.size() == 1 && items_.front().range == IovaRange::everything();
    }

    // Keeps the memory.
    void clear() { items_.clear(); }
    // `range` is a block: its size is a power of two, and it starts at a multiple of its size.
    void add(IovaRange range) {
        if (range == IovaRange::everything()) {
            set_everything();  // its size does not fit into 64 bits
            return;
        }
        const Item item = {range, range.last - range.first + 1};
        if (!items_.empty() && touch(items_.back().range, range)) {
            items_.back() = hull(items_.back(), item);
        } else if (items_.size() < kCapacity) {
            items_.push_back(item);
        } else {
            set_everything();
        }
    }
    // One range over everything, with blocks of one page.
    void set_everything() { items_.assign(1, {IovaRange::everything(), kPageSize}); }
    // Makes a range include `with`. The range may then overlap its neighbours.
    void widen(std::size_t index, IovaRange with) {
        items_[index].range = hull(items_[index].range, with);
    }
    void normalise() {
        if (items_.size() < 2) {
            return;
        }
        const auto before = [](const Item& a, const Item& b) {
            return a.range.first < b.range.first;
        };
        if (!std::is_sorted(items_.begin(), items_.end(), before)) {
            std::sort(items_.begin(), items_.end(), before);
        }
        std::size_t last = 0;
        for (std::size_t next = 1; next < items_.size(); ++next) {
            if (touch(items_[last].range, items_[next].range)) {
                items_[last] = hull(items_[last], items_[next]);
            } else {
                items_[++last] = items_[next];
            }
        }
        items_.resize(last + 1);
    }

    // The smallest range that includes both.
    static IovaRange hull(IovaRange a, IovaRange b) {
        return {std::min(a.first, b.first), std::max(a.last, b.last)};
    }

  private:
    struct Item {
        IovaRange range;
        std::uint64_t block = kPageSize;
    };

    static Item hull(const Item& a, const Item& b) {
        return {hull(a.range, b.range), std::min(a.block, b.block)};
    }
    // Whether the two overlap or are neighbours.
    static bool touch(IovaRange a, IovaRange b) {
        return !(a.first > b.last && a.first - b.last > 1) &&
               !(b.first > a.last && b.first - a.last > 1);
    }

    std::vector<Item> items_;
};

}  // namespace umbra::shadow
