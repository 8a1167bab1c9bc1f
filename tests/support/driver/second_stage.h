// SPDX-License-Identifier: GPL-2.0-or-later
//
// A second-stage table as a guest's driver builds it (specification 3.7, 9.8).
#pragma once

#include <cstddef>
#include <cstdint>

#include "plugin/vtd/types.h"
#include "tests/support/driver/layout.h"
#include "tests/support/driver/memory.h"
#include "tests/support/driver/page_allocator.h"

namespace umbra::driver {

// Sizes of leaves, as levels of the table that holds them.
enum class Leaf : unsigned { page_4k = 1, page_2m = 2, page_1g = 3 };
constexpr std::uint64_t leaf_size(Leaf leaf) {
    return kPageSize << 9 * (static_cast<unsigned>(leaf) - 1);
}

// Changes are visible to the unit at once; to tell the unit of them is the caller's work. `memory`
// and `pages` outlive the table.
class SecondStage {
  public:
    // A new table. `address_width` is 39 (three levels) or 48 (four).
    SecondStage(Memory& memory, PageAllocator& pages, unsigned address_width);
    // The table whose top is the page `root`.
    SecondStage(Memory& memory, PageAllocator& pages, unsigned address_width, Gpa root);

    [[nodiscard]] Gpa root() const { return root_; }
    [[nodiscard]] unsigned levels() const { return levels_; }
    [[nodiscard]] unsigned address_width() const { return 12 + 9 * levels_; }

    // Writes a leaf, building the tables above it. What the entry held before is overwritten; if
    // that was a pointer to a table, the table is no longer reachable.
    void map(Iova iova, Gpa target, Leaf leaf = Leaf::page_4k,
             std::uint64_t permissions = kEntryReadWrite);
    // `count` consecutive 4 KiB pages, IOVA and target ascending together.
    void map_pages(Iova iova, Gpa target, std::size_t count);
    // Clears the entry at the level of `leaf`.
    void unmap(Iova iova, Leaf leaf = Leaf::page_4k);
    void unmap_pages(Iova iova, std::size_t count);

    // The address of the entry for `iova` in the table of a level (1 is the lowest), building the
    // tables above it. An entry that is a leaf is replaced by a pointer to an empty table.
    [[nodiscard]] Gpa entry(Iova iova, unsigned level);
    // Writes an entry as it is, right or wrong.
    void set_entry(Iova iova, unsigned level, std::uint64_t value);

    // Table pages that this object allocated, and the root.
    [[nodiscard]] std::size_t table_pages() const { return table_pages_; }

  private:
    Memory& memory_;
    PageAllocator& pages_;
    unsigned levels_;
    Gpa root_;
    std::size_t table_pages_ = 1;
};

}  // namespace umbra::driver
