// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/leaf_sync.h"

#include <algorithm>

#include "plugin/vtd/interrupt_range.h"

namespace umbra::shadow {

using vtd::DecodedEntry;
using Kind = vtd::DecodedEntry::Kind;

void LeafSync::sync(const EntrySpan& entries) {
    Table& table = entries.table;
    const Mirror& mirror = leaves_.mirror;
    for (unsigned slot = entries.first; slot <= entries.last; ++slot) {
        const std::uint64_t value = entries.load(slot);
        if (value == table.copy[slot]) {
            continue;
        }
        ++run_.tally.entries_changed;
        const DecodedEntry entry = mirror.format().decode(1, value);
        const DecodedEntry old = mirror.format().decode(1, table.copy[slot]);
        if (old.kind == Kind::leaf) {
            if (entry.kind == Kind::not_present &&
                delta_.all_mapped_whole(table.entry_iova(slot))) {
                slot = remove_stretch(entries.from(slot), value);
                delta_.flush_if_full();
                continue;
            }
            if (is_same(table, old, entry, table.access)) {
                table.copy[slot] = value;
                continue;
            }
            remove(table, slot, old);
        }
        if (entry.kind == Kind::leaf) {
            if (const unsigned end = add_stretch(entries.from(slot), value); end != slot) {
                slot = end - 1;
            } else {
                add(table, slot, value, entry);
            }
        } else {
            table.copy[slot] = value;
            run_.tally.invalid_entries += entry.kind == Kind::reserved ? 1 : 0;
        }
        delta_.flush_if_full();
    }
}

inline unsigned LeafSync::add_stretch(const EntrySpan& entries, std::uint64_t value) {
    Table& table = entries.table;
    DomainLeaves& leaves = leaves_;
    const vtd::EntryFormat& format = leaves.mirror.format();
    const Options& options = run_.unit.options;
    const std::uint64_t budget =
        options.max_mappings - std::min(options.max_mappings, leaves.count);
    const unsigned end =
        entries.first + static_cast<unsigned>(std::min<std::uint64_t>(budget, entries.size()));
    DeltaBuilder::Additions additions(delta_, table.entry_iova(entries.first));
    const RamRun* run = nullptr;
    unsigned counted = entries.first;
    unsigned slot = entries.first;
    const auto count_leaves = [&] {
        table.leaves += static_cast<std::uint16_t>(slot - counted);
        leaves.count += slot - counted;
        counted = slot;
    };
    while (slot < end) {
        const DecodedEntry entry = format.decode(1, value);
        if (entry.kind != Kind::leaf) {
            break;
        }
        if (run == nullptr || !run->holds(entry.address, kPageSize)) {
            run = leaves.ram.run_around(entry.address, kPageSize);
            if (run == nullptr) {
                break;
            }
        }
        const Access access = leaves.ram.allowed_in(*run, entry.access & table.access);
        if (access == Access::none) {
            break;
        }
        const unsigned begin = slot;
        table.copy[slot] = value;
        ++slot;
        if (options.coalesce && delta_.join_block() != kPageSize && slot < end &&
            entries.load(slot) == value + kPageSize) {
            slot = copy_contiguous({table, entries.guest, slot, end - 1}, value, *run);
        }
        const bool joined =
            additions.add({table.entry_iova(begin), (slot - begin) * kPageSize,
                           run->host + (entry.address - run->first), entry.address, access},
                          *run);
        leaves.mark_joined(table, begin + (joined ? 0 : 1), slot);
        if (additions.full()) [[unlikely]] {
            count_leaves();
            additions.flush();
        }
        if (slot == end || leaves.mirror.is_leaf(table, slot)) {
            break;
        }
        value = entries.load(slot);
    }
    count_leaves();
    if (const unsigned added = slot - entries.first; added != 0) {
        run_.tally.entries_changed += added - 1;
        run_.tally.leaves_mapped += added;
        run_.tally.pages_mapped += added;
    }
    return slot;
}

inline unsigned LeafSync::copy_contiguous(const EntrySpan& entries, std::uint64_t value,
                                          const RamRun& run) const {
    Table& table = entries.table;
    const vtd::EntryFormat& format = leaves_.mirror.format();
    const unsigned end = contiguous_end(entries, value, run);
    unsigned slot = entries.first;
    for (; slot < end; ++slot) {
        value += kPageSize;
        if (entries.load(slot) != value ||
            format.decode(1, table.copy[slot]).kind != Kind::not_present) {
            break;
        }
        table.copy[slot] = value;
    }
    return slot;
}

inline unsigned LeafSync::contiguous_end(const EntrySpan& entries, std::uint64_t value,
                                         const RamRun& run) const {
    const unsigned first = entries.first;
    const Gpa address = leaves_.mirror.format().decode(1, value).address;
    const std::uint64_t pages =
        std::min(run.bytes - (address - run.first), run_.unit.options.coalesce_limit) >> kPageShift;
    unsigned end =
        first + static_cast<unsigned>(std::min<std::uint64_t>(entries.size(), pages - 1));
    if (const std::uint64_t block = delta_.join_block() >> kPageShift; block < kEntriesPerTable) {
        // A table begins with a block. So slots are in one block if slot / block is the same.
        end = std::min(end, static_cast<unsigned>(((first - 1) / block + 1) * block));
    }
    if (vtd::is_interrupt_address(entries.table.entry_iova(first - 1))) {
        // The mapping ends with the interrupt range, which begins where a table does.
        const std::uint64_t left =
            Iova(vtd::kInterruptRangeLast) + 1 - entries.table.entry_iova(first);
        end = std::min(end, first + static_cast<unsigned>(left >> kPageShift));
    }
    return end;
}

inline unsigned LeafSync::remove_stretch(const EntrySpan& entries, std::uint64_t value) {
    Table& table = entries.table;
    const Mirror& mirror = leaves_.mirror;
    const bool first_joined = table.joined.test(entries.first);
    std::uint64_t begun = 0;
    unsigned slot = entries.first;
    for (;; ++slot) {
        table.copy[slot] = value;
        begun += table.joined.test(slot) ? 0 : 1;
        table.joined.clear(slot);
        if (slot == entries.last || !mirror.is_leaf(table, slot + 1)) {
            break;
        }
        value = entries.load(slot + 1);
        if (mirror.format().decode(1, value).kind != Kind::not_present) {
            break;
        }
    }
    const unsigned count = slot - entries.first + 1;
    table.leaves -= static_cast<std::uint16_t>(count);
    leaves_.count -= count;
    run_.tally.entries_changed += count - 1;
    run_.tally.leaves_unmapped += count;
    run_.tally.pages_unmapped += count;
    delta_.emit_removal({table, entries.first, slot, first_joined, count, begun});
    return slot;
}

void LeafSync::remove_all(Table& table) {
    unsigned first = 0;
    while (!leaves_.mirror.is_leaf(table, first)) {
        ++first;
    }
    unsigned last = kEntriesPerTable - 1;
    while (!leaves_.mirror.is_leaf(table, last)) {
        --last;
    }
    const std::uint64_t count = table.leaves;
    table.leaves = 0;
    leaves_.count -= count;
    run_.tally.leaves_unmapped += count;
    run_.tally.pages_unmapped += count * (table.entry_bytes() >> kPageShift);
    delta_.emit_removal(
        {table, first, last, table.joined.test(first), count, count - table.joined.count()});
}

void LeafSync::refuse(IovaRange range) {
    ++run_.tally.refused_mappings;
    run_.refused.mappings = true;
    run_.log.report(Trouble::mapping_budget, range, 0);
}

}  // namespace umbra::shadow
