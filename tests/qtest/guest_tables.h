// SPDX-License-Identifier: GPL-2.0-or-later
//
// Root, context, second-stage and interrupt-remapping tables as a guest's driver builds them, in
// the RAM of a QtestMachine.
#pragma once

#include <cstdint>
#include <map>

#include "plugin/vtd/types.h"
#include "tests/qtest/qtest_machine.h"
#include "tests/qtest/vtd_layout.h"

namespace umbra::qtest {

// Hands out zeroed guest pages, ascending from `first` to `last`, and never takes them back.
class PageAllocator {
  public:
    PageAllocator(QtestMachine& machine, Gpa first, Gpa last)
        : machine_(machine), next_(first), last_(last) {}

    // `pages` in one piece, aligned to `alignment` bytes. Throws std::length_error when exhausted.
    [[nodiscard]] Gpa allocate(std::size_t pages = 1, std::uint64_t alignment = kPageSize);

  private:
    QtestMachine& machine_;
    Gpa next_;
    Gpa last_;
};

// Sizes of leaves, as levels of the table that holds them.
enum class Leaf : unsigned { page_4k = 1, page_2m = 2, page_1g = 3 };
constexpr std::uint64_t leaf_size(Leaf leaf) {
    return kPageSize << 9 * (static_cast<unsigned>(leaf) - 1);
}

// A second-stage table. Changes are visible to the unit at once; telling it is the caller's.
class SecondStage {
  public:
    // `address_width` is 39 (three levels) or 48 (four).
    SecondStage(QtestMachine& machine, PageAllocator& pages, unsigned address_width);

    [[nodiscard]] Gpa root() const { return root_; }
    [[nodiscard]] unsigned levels() const { return levels_; }
    [[nodiscard]] unsigned address_width() const { return 12 + 9 * levels_; }

    // Writes a leaf, building the tables above it. What the entry held before is overwritten; if
    // that was a pointer to a table, the table is no longer reachable.
    void map(Iova iova, Gpa target, Leaf leaf = Leaf::page_4k,
             std::uint64_t permissions = vtd::kEntryReadWrite);
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

    // Table pages in use, the root included.
    [[nodiscard]] std::size_t table_pages() const { return table_pages_; }

  private:
    QtestMachine& machine_;
    PageAllocator& pages_;
    unsigned levels_;
    Gpa root_;
    std::size_t table_pages_ = 1;
};

// What a context entry says.
struct Context {
    Gpa table{};
    unsigned levels = 4;
    std::uint16_t domain = 0;
    vtd::TranslationType type = vtd::TranslationType::second_stage;
    bool fault_processing_disabled = false;
    bool present = true;
};

// The root table and the context tables of the busses in use.
class ContextTables {
  public:
    ContextTables(QtestMachine& machine, PageAllocator& pages);

    [[nodiscard]] Gpa root() const { return root_; }
    void set(SourceId function, const Context& context);
    void clear(SourceId function);
    // Address of the 16-byte context entry, its bus's table being made if needed.
    [[nodiscard]] Gpa context_entry(SourceId function);
    // Address of the 16-byte root entry.
    [[nodiscard]] Gpa root_entry(std::uint8_t bus) const;

  private:
    QtestMachine& machine_;
    PageAllocator& pages_;
    Gpa root_;
    std::map<std::uint8_t, Gpa> tables_;
};

// An interrupt-remapping table entry, remapped format (specification 9.10).
struct InterruptEntry {
    bool present = true;
    bool fault_processing_disabled = false;
    bool logical_destination = false;
    bool redirection_hint = false;
    bool level_triggered = false;
    unsigned delivery_mode = 0;
    std::uint8_t vector = 0;
    std::uint32_t destination = 0;  // APIC id
    bool extended_mode = false;     // how `destination` is laid out: EIM or xAPIC
    SourceId source{};
    unsigned source_qualifier = 0;
    unsigned source_validation = 0;  // SVT: 0 none, 1 by SQ and source, 2 by bus range
};

class InterruptTable {
  public:
    // 2^(size + 1) entries; `size` 0 to 15.
    InterruptTable(QtestMachine& machine, PageAllocator& pages, unsigned size);

    [[nodiscard]] Gpa address() const { return address_; }
    [[nodiscard]] unsigned size() const { return size_; }
    void set(std::uint16_t index, const InterruptEntry& entry);
    void set_raw(std::uint16_t index, std::uint64_t low, std::uint64_t high);

  private:
    QtestMachine& machine_;
    unsigned size_;
    Gpa address_;
};

// The address of an interrupt message in remappable format (specification 5.1.2.2).
[[nodiscard]] std::uint64_t remappable_address(std::uint16_t handle, bool subhandle_valid = false);

}  // namespace umbra::qtest
