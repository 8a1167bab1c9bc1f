// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/table_sync.h"

#include <algorithm>
#include <array>
#include <bit>

#include "plugin/shadow/bitmap.h"
#include "plugin/shadow/leaf_resize.h"
#include "plugin/shadow/range_list.h"

namespace umbra::shadow {
namespace {

using vtd::DecodedEntry;
using vtd::level_index;
using Kind = vtd::DecodedEntry::Kind;

// Up to this many entries are compared one by one.
constexpr unsigned kFewEntries = kEntriesPerLine;

// The entries of a table page that is not in RAM.
alignas(64) constexpr std::array<std::uint64_t, kEntriesPerTable> kNothing{};

void prefetch_start(const Table& table) {
    // The CPU's own prefetchers follow once a page is entered; they do not cross page boundaries.
    const auto* guest = reinterpret_cast<const char*>(table.guest);
    const auto* copy = reinterpret_cast<const char*>(table.copy);
    for (unsigned line = 0; line < 4; ++line) {
        __builtin_prefetch(guest + std::size_t{64} * line);
        __builtin_prefetch(copy + std::size_t{64} * line);
    }
}

}  // namespace

TableSync::Result TableSync::sync(IovaRange range) {
    Table& root = mirror_.root();
    range.last = std::min(range.last, root.last());
    widened_ = range;
    bool done = true;
    if (root.copy != nullptr && range.first <= range.last) {
        done = sync_table(root, range) || resume_at_ > widened_.last;
    }
    return {done, resume_at_, widened_};
}

inline bool TableSync::time_is_up(Iova done) {
    // A slice that is over stays so, and the walk resumes where it was over first.
    if (!over_ && run_.slice.table_ends_it()) [[unlikely]] {
        over_ = true;
        resume_at_ = done + 1;
    }
    return over_;
}

// ---- Going through tables ----

bool TableSync::sync_table(Table& table, IovaRange range) {
    const unsigned first = level_index(range.first, table.level);
    const unsigned last = level_index(range.last, table.level);
    const EntrySpan entries = {table, table.guest != nullptr ? table.guest : kNothing.data(), first,
                               last};
    if (table.access_changed) [[unlikely]] {
        apply_access(entries);
    }
    const CompareFunctions& compare = run_.unit.compare;
    if (table.leaves == 0 && table.children == nullptr && entries.size() == kEntriesPerTable &&
        !compare.any_present(entries.guest)) {
        // Entries that are not present can differ from the copy, and need not be taken over.
        ++run_.tally.tables_skipped;
        return !time_is_up(range.last);
    }
    ++run_.tally.tables_compared;
    if (entries.size() <= kFewEntries) {
        return sync_entries(entries, range) && !time_is_up(range.last);
    }
    const std::uint64_t lines = compare.differing_lines(entries.guest, table.copy) &
                                bit_range(first / kEntriesPerLine, last / kEntriesPerLine);
    const bool in_time = table.children == nullptr ? sync_lines(entries, lines, range)
                                                   : sync_words(entries, lines, range);
    return in_time && !time_is_up(range.last);
}

inline bool TableSync::sync_child(Table& child, IovaRange range) {
    return sync_table(child,
                      {std::max(range.first, child.base), std::min(range.last, child.last())});
}

inline bool TableSync::sync_lines(const EntrySpan& entries, std::uint64_t lines, IovaRange range) {
    while (lines != 0) {
        // Neighbouring lines go together, because a stretch of changes mostly crosses their border.
        const auto line = static_cast<unsigned>(std::countr_zero(lines));
        const auto count = static_cast<unsigned>(std::countr_one(lines >> line));
        lines &= ~bit_range(line, line + count - 1);
        const unsigned first = std::max(entries.first, line * kEntriesPerLine);
        const unsigned last = std::min(entries.last, (line + count) * kEntriesPerLine - 1);
        if (!sync_entries({entries.table, entries.guest, first, last}, range)) {
            return false;
        }
    }
    return true;
}

inline bool TableSync::sync_words(const EntrySpan& entries, std::uint64_t lines, IovaRange range) {
    for (unsigned word = entries.first / 64; word <= entries.last / 64; ++word) {
        const unsigned first = std::max(entries.first, word * 64);
        const unsigned last = std::min(entries.last, word * 64 + 63);
        const bool differs = ((lines >> (word * 8)) & 0xff) != 0;
        const bool in_time =
            differs ? sync_entries({entries.table, entries.guest, first, last}, range)
                    : sync_children(entries.table, word, bit_range(first % 64, last % 64), range);
        if (!in_time) {
            return false;
        }
    }
    return true;
}

bool TableSync::sync_entries(const EntrySpan& entries, IovaRange range) {
    Table& table = entries.table;
    if (table.level == 1) {
        leaf_sync_.sync(entries);
        return true;
    }
    for (unsigned slot = entries.first; slot <= entries.last; ++slot) {
        const std::uint64_t value = entries.load(slot);
        bool in_time = true;
        if (value != table.copy[slot]) {
            in_time = change_entry(table, slot, value, range);
            delta_.flush_if_full();
        } else if (Table* child = table.child(slot)) {
            in_time = sync_child(*child, range);
        }
        if (!in_time) {
            return false;
        }
    }
    return true;
}

bool TableSync::sync_children(Table& table, unsigned word, std::uint64_t entries, IovaRange range) {
    if (table.children == nullptr) {
        return true;
    }
    const Children& children = *table.children;
    entries &= children.present.word(word);
    if (entries == 0) {
        return true;
    }
    std::size_t index =
        children.present.rank(word * 64 + static_cast<unsigned>(std::countr_zero(entries)));
    for (; entries != 0; entries &= entries - 1) {
        Table& child = *children.list[index];
        ++index;
        if (index < children.list.size()) {
            prefetch_start(*children.list[index]);
            if (index + 1 < children.list.size()) {
                __builtin_prefetch(children.list[index + 1]);
            }
        }
        if (!sync_child(child, range)) {
            return false;
        }
    }
    return true;
}

// ---- Entries that changed ----

bool TableSync::change_entry(Table& table, unsigned slot, std::uint64_t value, IovaRange range) {
    ++run_.tally.entries_changed;
    const DecodedEntry entry = mirror_.format().decode(table.level, value);
    if (Table* child = table.child(slot)) {
        if (entry.kind == Kind::table &&
            (entry.address == child->address ||
             mirror_.refusal(table, entry.address) == Mirror::Refusal::none)) {
            table.copy[slot] = value;
            return change_table(*child, entry, range);
        }
        if (entry.kind == Kind::leaf) {
            if (LeafResize(run_, delta_).coarsen(*child, value, entry)) {
                return true;
            }
            ++run_.tally.resizes;
        }
        if (!remove_table(*child)) {
            // The entry still differs, so the next call goes on here.
            resume_at_ = std::max(range.first, table.entry_iova(slot));
            return false;
        }
    } else if (mirror_.is_leaf(table, slot)) {
        const DecodedEntry old = mirror_.entry(table, slot);
        if (leaf_sync_.is_same(table, old, entry, table.access)) {
            table.copy[slot] = value;
            return true;
        }
        if (entry.kind == Kind::table) {
            if (LeafResize(run_, delta_).refine(table, slot, value, entry)) {
                return true;
            }
            ++run_.tally.resizes;
            // The leaf goes as a whole, so all that replaces it has to come, whatever was named.
            range = table.entry_range(slot);
            widened_ = RangeList::hull(widened_, range);
        }
        leaf_sync_.remove(table, slot, old);
    }
    return fill_entry(table, slot, value, entry, range);
}

bool TableSync::fill_entry(Table& table, unsigned slot, std::uint64_t value,
                           const DecodedEntry& entry, IovaRange range) {
    switch (entry.kind) {
        case Kind::not_present:
            table.copy[slot] = value;
            return true;
        case Kind::reserved:
            table.copy[slot] = value;
            ++run_.tally.invalid_entries;
            return true;
        case Kind::leaf:
            leaf_sync_.add(table, slot, value, entry);
            return true;
        case Kind::table:
            return add_table(table, slot, value, entry, range);
    }
    return true;
}

bool TableSync::change_table(Table& child, const DecodedEntry& entry, IovaRange range) {
    if (child.address != entry.address) {
        child.address = entry.address;
        child.guest = mirror_.guest_page(entry.address);
    }
    const Access access = entry.access & child.parent->access;
    if (access == child.access && !child.access_changed) {
        return sync_child(child, range);
    }
    mark_access_changed(child);
    widened_ = RangeList::hull(widened_, child.range());
    return sync_table(child, child.range());
}

void TableSync::mark_access_changed(Table& table) {
    table.access_changed = true;
    if (table.children != nullptr) {
        for (Table* child : table.children->list) {
            mark_access_changed(*child);
        }
    }
}

void TableSync::apply_access(const EntrySpan& entries) {
    Table& table = entries.table;
    const Access after = mirror_.entry(*table.parent, table.slot).access & table.parent->access;
    table.access_changed = false;
    for (unsigned slot = 0; slot < kEntriesPerTable && after != table.access; ++slot) {
        const DecodedEntry old = mirror_.entry(table, slot);
        if (old.kind != Kind::leaf) {
            continue;
        }
        const std::uint64_t value = entries.load(slot);
        const DecodedEntry entry = mirror_.format().decode(table.level, value);
        if (leaf_sync_.is_same(table, old, entry, after)) {
            table.copy[slot] = value;
            continue;
        }
        run_.tally.resizes += entry.kind == Kind::table ? 1 : 0;
        leaf_sync_.remove(table, slot, old);
        delta_.flush_if_full();
    }
    table.access = after;
}

// ---- Tables that come and go ----

bool TableSync::add_table(Table& table, unsigned slot, std::uint64_t value,
                          const DecodedEntry& entry, IovaRange range) {
    const IovaRange covered = table.entry_range(slot);
    switch (mirror_.refusal(table, entry.address)) {
        case Mirror::Refusal::not_ram:
            ++run_.tally.invalid_entries;
            return true;
        case Mirror::Refusal::loop:
            ++run_.tally.loops;
            run_.refused.loops = true;
            run_.log.report(Trouble::table_loop, covered, 0);
            return true;
        case Mirror::Refusal::none:
            break;
    }
    if (leaf_sync_.budget_used_up()) {
        // Nothing in the table could be taken over, so the table is not looked at.
        leaf_sync_.refuse(covered);
        return true;
    }
    Table* child = mirror_.add_child(table, slot, entry.address, entry.access & table.access);
    if (child == nullptr) {
        ++run_.tally.refused_tables;
        run_.refused.tables = true;
        run_.log.report(Trouble::table_budget, covered, 0);
        return true;
    }
    table.copy[slot] = value;
    return sync_child(*child, range);
}

bool TableSync::remove_table(Table& table) {
    const bool any_leaf = table.leaves != 0;
    if (any_leaf && table.children == nullptr && delta_.all_mapped_whole(table.base)) {
        leaf_sync_.remove_all(table);
    } else if (any_leaf || table.children != nullptr) {
        for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
            if (Table* child = table.child(slot)) {
                if (!remove_table(*child)) {
                    return false;
                }
            } else if (mirror_.is_leaf(table, slot)) {
                leaf_sync_.remove(table, slot, mirror_.entry(table, slot));
                delta_.flush_if_full();
            }
        }
    }
    const Iova last = table.last();
    table.parent->copy[table.slot] = 0;
    mirror_.remove(table);
    delta_.flush_if_full();
    return !time_is_up(last);
}

}  // namespace umbra::shadow
