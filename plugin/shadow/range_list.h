// SPDX-License-Identifier: GPL-2.0-or-later
//
// The IOVAs that a sync concerns, as a list of ranges. They are gathered in the order in which the
// guest names them; then normalise() makes them ascend and lie apart, so that one pass over the
// tables serves them all. Bounded: a list of too many ranges becomes everything, because one look
// at all tables is cheaper than very many at few.
//
// Each knows the smallest block that the guest named in it. What lies in one block the guest mapped
// in one go, as far as anyone can tell; of what lies in two that is not known.
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
    // In bytes, a power of two, a page or more.
    [[nodiscard]] std::uint64_t block(std::size_t index) const { return items_[index].block; }
    [[nodiscard]] bool everything() const {
        return items_.size() == 1 && items_.front().range == IovaRange::everything();
    }

    // Memory is kept.
    void clear() { items_.clear(); }
    // `range` is a block: its size is a power of two, and it lies at a multiple of that.
    void add(IovaRange range) {
        const Item item = {range, range.last - range.first + 1};
        if (!items_.empty() && touch(items_.back().range, range)) {
            items_.back() = hull(items_.back(), item);
        } else if (items_.size() < kCapacity) {
            items_.push_back(item);
        } else {
            set_everything();
        }
    }
    // As if each page had been named by itself.
    void set_everything() { items_.assign(1, {IovaRange::everything(), kPageSize}); }
    // Makes one reach further, into its neighbours as may be.
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
    // Whether nothing lies between the two.
    static bool touch(IovaRange a, IovaRange b) {
        return !(a.first > b.last && a.first - b.last > 1) &&
               !(b.first > a.last && b.first - a.last > 1);
    }

    std::vector<Item> items_;
};

}  // namespace umbra::shadow
