// SPDX-License-Identifier: GPL-2.0-or-later
//
// A set of leaves of a mirror. Each table with a leaf in the set has a bitmap, so an empty set
// costs nothing to ask, and a set of very many leaves takes one bit a leaf. A leaf must leave the
// set before it leaves the mirror.
//
// Threading: one thread at a time.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>
#include <map>

#include "plugin/shadow/bitmap.h"
#include "plugin/shadow/mirror.h"

namespace umbra::shadow {

class LeafSet {
  public:
    // The position of a leaf in the set's order: first IOVA of its table, level of the table, slot.
    // Tables of two levels can start at the same IOVA, so the level tells them apart. The leaves of
    // one table are neighbours.
    using Place = std::uint64_t;
    static constexpr Place kNowhere = std::numeric_limits<Place>::max();

    [[nodiscard]] static Place place(const Table& table, unsigned slot) {
        return table.base.value() | std::uint64_t{table.level} << kSlotBits | slot;
    }
    // The first place after the last slot of the table.
    [[nodiscard]] static Place after(const Table& table) {
        return place(table, kEntriesPerTable - 1) + 1;
    }
    // The leaf at `place`. None if the mirror has no such table.
    [[nodiscard]] static LeafRef leaf_at(const Mirror& mirror, Place place) {
        const unsigned level = static_cast<unsigned>(place >> kSlotBits) & kLevelMask;
        Table* table = mirror.table_at(Iova(place).align_down(kPageSize), level);
        return table != nullptr && table->level == level
                   ? LeafRef{table, static_cast<unsigned>(place & kSlotMask)}
                   : LeafRef{};
    }

    [[nodiscard]] bool empty() const { return tables_.empty(); }
    [[nodiscard]] bool has(LeafRef leaf) const {
        if (tables_.empty()) {
            return false;
        }
        const auto found = tables_.find(place(*leaf.table, 0));
        return found != tables_.end() && found->second.test(leaf.slot);
    }
    // The first place at or after `from` that is in the set, or kNowhere.
    [[nodiscard]] Place next(Place from) const {
        auto at = tables_.lower_bound(from & ~kSlotMask);
        if (at != tables_.end() && at->first == (from & ~kSlotMask)) {
            if (const unsigned slot =
                    first_from(at->second, static_cast<unsigned>(from & kSlotMask));
                slot != kEntriesPerTable) {
                return at->first | slot;
            }
            ++at;
        }
        return at == tables_.end() ? kNowhere : at->first | first_from(at->second, 0);
    }

    // add() and remove() return whether the set changed.
    bool add(LeafRef leaf) {
        EntryBitmap& bits = tables_[place(*leaf.table, 0)];
        const bool is_new = !bits.test(leaf.slot);
        bits.set(leaf.slot);
        return is_new;
    }
    bool remove(LeafRef leaf) {
        const auto found = tables_.find(place(*leaf.table, 0));
        if (found == tables_.end() || !found->second.test(leaf.slot)) {
            return false;
        }
        found->second.clear(leaf.slot);
        if (found->second.none()) {
            tables_.erase(found);
        }
        return true;
    }
    void clear() { tables_.clear(); }

  private:
    // A table's first IOVA is a multiple of 4 KiB. The low 12 bits hold level and slot.
    static constexpr unsigned kSlotBits = 9;
    static constexpr Place kSlotMask = kEntriesPerTable - 1;
    static constexpr unsigned kLevelMask = 7;
    static_assert(kEntriesPerTable == 1U << kSlotBits && vtd::kMaxLevels <= kLevelMask);

    // The first set bit at or after `slot`, or kEntriesPerTable.
    [[nodiscard]] static unsigned first_from(const EntryBitmap& bits, unsigned slot) {
        std::uint64_t mask = ~std::uint64_t{0} << slot % 64;
        for (unsigned word = slot / 64; word < EntryBitmap::kWords; ++word) {
            if (const std::uint64_t set = bits.word(word) & mask; set != 0) {
                return word * 64 + static_cast<unsigned>(std::countr_zero(set));
            }
            mask = ~std::uint64_t{0};
        }
        return kEntriesPerTable;
    }

    std::map<Place, EntryBitmap> tables_;  // by the place of slot 0
};

}  // namespace umbra::shadow
