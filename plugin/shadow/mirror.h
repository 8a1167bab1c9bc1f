// SPDX-License-Identifier: GPL-2.0-or-later
//
// The mirror of one guest domain's second-stage tables, as of the last sync of each part.
//
// A Table stands for one table page at one place of the tree, so its key is what it translates (an
// IOVA and a level), not where the guest keeps it: a page that the guest links in at two places is
// mirrored twice, and a page that the guest replaces by another one is compared with it. `copy`
// holds the entries that were last taken over. An entry that could not be taken over (a budget is
// used up, a table that is no RAM) is 0 in the copy, so every later comparison finds it again.
//
// What the host is meant to have mapped follows from the mirror alone: the leaf entries of the
// copies, with the permission of the path to them, resolved in the current snapshot of guest RAM.
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

// Tables below a table, in order of their slots. Small, because most tables above the lowest level
// have few, and because there are few of those.
struct Children {
    EntryBitmap present;
    std::vector<Table*> list;  // one for each set bit
};

struct alignas(64) Table {
    // What a sync of an unchanged domain reads of it.
    const std::uint64_t* guest = nullptr;  // the guest's page; null while it is not in RAM
    std::uint64_t* copy = nullptr;
    std::unique_ptr<Children> children;  // null if there is none
    std::uint16_t leaves = 0;            // leaf entries in `copy`
    std::uint16_t slot = 0;              // in the parent
    std::uint8_t level = 0;
    Access access =
        Access::none;             // what the entries above grant together, as its leaves are mapped
    bool access_changed = false;  // they grant something else by now; a sync has yet to follow

    Table* parent = nullptr;
    Gpa address;  // of the guest's page
    Iova base;    // first IOVA that it translates

    // Bit i: leaf i belongs to the same host mapping as the leaf before it in IOVA order.
    EntryBitmap joined;

    [[nodiscard]] std::uint64_t entry_bytes() const { return vtd::level_span(level); }
    [[nodiscard]] Iova entry_iova(unsigned index) const { return base + index * entry_bytes(); }
    [[nodiscard]] Table* child(unsigned index) const {
        return children != nullptr && children->present.test(index)
                   ? children->list[children->present.rank(index)]
                   : nullptr;
    }
    // Last IOVA that it translates.
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

// How many tables there may be; shared by all domains of a unit.
struct TableBudget {
    std::uint32_t limit = 0;
    std::uint32_t used = 0;
};

class Mirror {
  public:
    // `arena`, `unit_budget` and `memory` outlive the mirror. The top-level table is there from the
    // start, with an empty copy, even if the budgets are used up.
    Mirror(const GuestMemory& memory, PageArena& arena, TableBudget& unit_budget,
           std::uint32_t domain_limit, vtd::EntryFormat format, Gpa root, unsigned levels);
    ~Mirror();
    Mirror(const Mirror&) = delete;
    Mirror& operator=(const Mirror&) = delete;

    [[nodiscard]] Table& root() const { return *root_; }
    [[nodiscard]] const vtd::EntryFormat& format() const { return format_; }
    [[nodiscard]] std::uint32_t tables() const { return tables_; }
    // Copies and all that describes them.
    [[nodiscard]] std::uint64_t bytes() const;

    // Looks up where the guest's pages are again, if guest memory has changed its generation.
    void refresh_pointers();
    [[nodiscard]] const std::uint64_t* guest_page(Gpa address) const;

    enum class Refusal : std::uint8_t { none, not_ram, loop };
    // Whether the guest's page `address` can become a table below `parent`.
    [[nodiscard]] Refusal refusal(const Table& parent, Gpa address) const;
    [[nodiscard]] bool budget_left() const {
        return tables_ < domain_limit_ && unit_budget_.used < unit_budget_.limit;
    }
    // Adds a table with an empty copy below entry `slot` of `parent`, which has none there.
    // nullptr if a budget or the host's memory is used up.
    [[nodiscard]] Table* add_child(Table& parent, unsigned slot, Gpa address, Access access);
    // Takes away a table without tables below it.
    void remove(Table& table);

    // The leaf that translates `iova`, if there is one.
    [[nodiscard]] LeafRef leaf_at(Iova iova) const;
    // The table of `level` that translates `iova`, if there is one.
    [[nodiscard]] Table* table_at(Iova iova, unsigned level) const;
    // Whether any leaf translates any IOVA in `range`.
    [[nodiscard]] bool any_leaf(IovaRange range) const { return any_leaf_below(*root_, range); }
    [[nodiscard]] bool is_leaf(const Table& table, unsigned slot) const {
        return format_.decode(table.level, table.copy[slot]).kind == vtd::DecodedEntry::Kind::leaf;
    }

    // The run of joined leaves around `leaf`: everything that was mapped by the same host call.
    [[nodiscard]] LeafRef first_of_run(LeafRef leaf) const;
    // End (exclusive) of the run from `leaf` on.
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
