// SPDX-License-Identifier: GPL-2.0-or-later
//
// The mirror of one guest domain's second-stage tables, as of the last sync of each part.
//
// A Table stands for one place of the tree, named by the IOVAs that it translates and by its level.
// The address of the guest's page is no part of that name. A page that the guest links in at two
// places is mirrored twice, and a page that replaces another one is compared with the same copy.
//
// `copy` holds the entries that were taken over last. An entry that could not be taken over is 0
// there, because a budget is used up or because its table is not in RAM. Every later comparison
// finds it again.
//
// The host is meant to have mapped each leaf entry of the copies, with the access that the path to
// it grants, at the host memory that the current snapshot of guest RAM gives for its address.
//
// Threading: one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "plugin/shadow/bitmap.h"
#include "plugin/shadow/page_arena.h"
#include "plugin/vtd/guest_memory.h"
#include "plugin/vtd/second_stage.h"
#include "plugin/vtd/types.h"

namespace umbra::shadow {

struct Table;

// The tables below a table, in order of their slots. Most tables above the lowest level have few,
// so the list is short.
struct Children {
    EntryBitmap present;
    std::vector<Table*> list;  // one for each set bit
};

struct alignas(64) Table {
    // A sync of an unchanged domain reads these first members only.
    const std::uint64_t* guest = nullptr;  // the guest's page; null while it is not in RAM
    std::uint64_t* copy = nullptr;
    std::unique_ptr<Children> children;  // null if no table is below this one
    std::uint16_t leaves = 0;            // number of leaf entries in `copy`
    std::uint16_t slot = 0;              // of the parent's entry that leads here
    std::uint8_t level = 0;
    // What the entries above this table granted together when its leaves were mapped.
    Access access = Access::none;
    bool access_changed = false;  // the entries above grant something else, not applied yet

    Table* parent = nullptr;
    Gpa address;  // of the guest's page
    Iova base;    // first IOVA that the table translates

    // Bit i: leaf i belongs to the same host mapping as the leaf before it in order of IOVA.
    EntryBitmap joined;

    [[nodiscard]] std::uint64_t entry_bytes() const { return vtd::level_span(level); }
    [[nodiscard]] Iova entry_iova(unsigned index) const { return base + index * entry_bytes(); }
    [[nodiscard]] Table* child(unsigned index) const {
        return children != nullptr && children->present.test(index)
                   ? children->list[children->present.rank(index)]
                   : nullptr;
    }
    // The IOVAs that one entry translates.
    [[nodiscard]] IovaRange entry_range(unsigned index) const {
        return {entry_iova(index), entry_iova(index) + (entry_bytes() - 1)};
    }
    // The IOVAs that the table translates, and the last one of them.
    [[nodiscard]] IovaRange range() const { return {base, last()}; }
    [[nodiscard]] Iova last() const { return base + (kEntriesPerTable * entry_bytes() - 1); }
};
static_assert(sizeof(Table) == 128, "part of the memory budget of a mirrored page");

// A leaf entry in the mirror.
struct LeafRef {
    Table* table = nullptr;
    unsigned slot = 0;

    explicit operator bool() const { return table != nullptr; }
    [[nodiscard]] Iova iova() const { return table->entry_iova(slot); }
    [[nodiscard]] std::uint64_t bytes() const { return table->entry_bytes(); }
    [[nodiscard]] bool joined() const { return table->joined.test(slot); }
};

// How many tables all domains of a unit may have together.
struct TableBudget {
    std::uint32_t limit = 0;
    std::uint32_t used = 0;
};

class Mirror {
  public:
    // `arena`, `unit_budget` and `memory` outlive the mirror. The mirror begins with the top-level
    // table and an empty copy of it, even if the budgets are used up.
    Mirror(const GuestMemory& memory, PageArena& arena, TableBudget& unit_budget,
           std::uint32_t domain_limit, vtd::EntryFormat format, Gpa root, unsigned levels);
    ~Mirror();
    Mirror(const Mirror&) = delete;
    Mirror& operator=(const Mirror&) = delete;

    [[nodiscard]] Table& root() const { return *root_; }
    [[nodiscard]] const vtd::EntryFormat& format() const { return format_; }
    [[nodiscard]] std::uint32_t tables() const { return tables_; }
    // Memory of the copies and of all that describes them.
    [[nodiscard]] std::uint64_t bytes() const;

    // Looks up the guest's pages again if guest memory has another generation than last time.
    void refresh_pointers();
    [[nodiscard]] const std::uint64_t* guest_page(Gpa address) const;

    enum class Refusal : std::uint8_t { none, not_ram, loop };
    // Why the guest's page `address` cannot become a table below `parent`, if it cannot.
    [[nodiscard]] Refusal refusal(const Table& parent, Gpa address) const;
    [[nodiscard]] bool budget_left() const {
        return tables_ < domain_limit_ && unit_budget_.used < unit_budget_.limit;
    }
    // Adds a table with an empty copy below entry `slot` of `parent`, where no table is yet.
    // nullptr if a budget or the host's memory is used up.
    [[nodiscard]] Table* add_child(Table& parent, unsigned slot, Gpa address, Access access);
    // Removes a table that has no tables below it.
    void remove(Table& table);

    // The leaf that translates `iova`; no leaf if nothing does.
    [[nodiscard]] LeafRef leaf_at(Iova iova) const;
    // The table that translates `iova` at `level`; nullptr if there is none.
    [[nodiscard]] Table* table_at(Iova iova, unsigned level) const;
    // Whether any leaf translates any IOVA in `range`.
    [[nodiscard]] bool any_leaf(IovaRange range) const { return any_leaf_below(*root_, range); }
    // The entry at `slot` of the copy.
    [[nodiscard]] vtd::DecodedEntry entry(const Table& table, unsigned slot) const {
        return format_.decode(table.level, table.copy[slot]);
    }
    [[nodiscard]] bool is_leaf(const Table& table, unsigned slot) const {
        return entry(table, slot).kind == vtd::DecodedEntry::Kind::leaf;
    }

    // A run is a leaf and all leaves that are joined to it: the leaves of one host mapping.
    // The first leaf of the run that `leaf` is in.
    [[nodiscard]] LeafRef first_of_run(LeafRef leaf) const;
    // The first IOVA after the run that `leaf` is in.
    [[nodiscard]] Iova end_of_run(LeafRef leaf) const;

    // Calls `visit(LeafRef)` for every leaf that starts in `range`, in order of IOVA.
    template <class Visit>
    void leaves(IovaRange range, Visit&& visit) const {
        visit_leaves(*root_, range, visit);
    }
    template <class Visit>
    void each_table(Visit&& visit) const {
        visit_tables(*root_, visit);
    }

  private:
    [[nodiscard]] Table* allocate();
    void free(Table& table);
    void free_below(Table& table);
    [[nodiscard]] bool any_leaf_below(const Table& table, IovaRange range) const;

    template <class Visit>
    void visit_leaves(Table& table, IovaRange range, Visit& visit) const {
        const unsigned first =
            range.first <= table.base ? 0 : vtd::level_index(range.first, table.level);
        const unsigned last = range.last >= table.last()
                                  ? kEntriesPerTable - 1
                                  : vtd::level_index(range.last, table.level);
        if (table.children == nullptr && table.leaves == 0) {
            return;
        }
        for (unsigned slot = first; slot <= last; ++slot) {
            if (Table* child = table.child(slot)) {
                visit_leaves(*child, range, visit);
            } else if (is_leaf(table, slot) && table.entry_iova(slot) >= range.first) {
                visit(LeafRef{&table, slot});
            }
        }
    }
    template <class Visit>
    void visit_tables(Table& table, Visit& visit) const {
        visit(table);
        if (table.children != nullptr) {
            for (Table* child : table.children->list) {
                visit_tables(*child, visit);
            }
        }
    }

    static constexpr std::size_t kTablesPerChunk = 64;

    const GuestMemory& memory_;
    PageArena& arena_;
    TableBudget& unit_budget_;
    const std::uint32_t domain_limit_;
    const vtd::EntryFormat format_;
    std::uint64_t memory_generation_;
    std::vector<std::unique_ptr<Table[]>> chunks_;
    Table* free_ = nullptr;  // linked by `parent`
    std::uint32_t tables_ = 0;
    std::uint64_t children_bytes_ = 0;
    Table* root_;  // last: making it uses all others
};

}  // namespace umbra::shadow
