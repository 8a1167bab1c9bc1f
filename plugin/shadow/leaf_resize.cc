// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/leaf_resize.h"

#include "plugin/shadow/entry_span.h"

namespace umbra::shadow {

using vtd::DecodedEntry;
using Kind = vtd::DecodedEntry::Kind;

bool LeafResize::refine(Table& table, unsigned slot, std::uint64_t value,
                        const DecodedEntry& entry) {
    Mirror& mirror = leaves_.mirror;
    const DecodedEntry old = mirror.entry(table, slot);
    const Access access = old.access & table.access;
    if (leaves_.ram.whole(old.address, table.entry_bytes(), access).bytes == 0 ||
        mirror.refusal(table, entry.address) != Mirror::Refusal::none ||
        delta_.misses_any(table.entry_range(slot))) {
        return false;
    }
    Table* child = mirror.add_child(table, slot, entry.address, entry.access & table.access);
    if (child == nullptr) {
        return false;
    }
    std::uint64_t leaves = 0;
    if (!adopt(*child, old.address, access, leaves) ||
        leaves_.count + leaves - 1 > run_.unit.options.max_mappings) {
        drop(*child);
        return false;
    }
    // The host keeps one mapping. The first of the new leaves begins it, or continues the mapping
    // before, as the large leaf did.
    const bool joined = table.joined.test(slot);
    table.joined.clear(slot);
    table.copy[slot] = value;
    --table.leaves;
    leaves_.count += leaves - 1;
    leaves_.any_joined = true;
    if (!joined) {
        const LeafRef first = mirror.leaf_at(child->base);
        first.table->joined.clear(first.slot);
    }
    return true;
}

bool LeafResize::adopt(Table& table, Gpa guest, Access access, std::uint64_t& leaves) {
    if (table.guest == nullptr) {
        return false;
    }
    Mirror& mirror = leaves_.mirror;
    const EntrySpan entries = {table, table.guest, 0, kEntriesPerTable - 1};
    for (unsigned slot = entries.first; slot <= entries.last; ++slot) {
        const std::uint64_t value = entries.load(slot);
        const DecodedEntry entry = mirror.format().decode(table.level, value);
        const Gpa expected = guest + slot * table.entry_bytes();
        if (entry.kind == Kind::leaf) {
            if (entry.address != expected || (entry.access & table.access) != access) {
                return false;
            }
            table.copy[slot] = value;
            table.joined.set(slot);
            ++table.leaves;
            ++leaves;
        } else if (entry.kind == Kind::table) {
            if (mirror.refusal(table, entry.address) != Mirror::Refusal::none) {
                return false;
            }
            Table* child =
                mirror.add_child(table, slot, entry.address, entry.access & table.access);
            if (child == nullptr) {
                return false;
            }
            table.copy[slot] = value;
            if (!adopt(*child, expected, access, leaves)) {
                return false;
            }
        } else {
            return false;
        }
    }
    return true;
}

bool LeafResize::coarsen(Table& child, std::uint64_t value, const DecodedEntry& entry) {
    Mirror& mirror = leaves_.mirror;
    Table& table = *child.parent;
    const unsigned slot = child.slot;
    const Access access = entry.access & table.access;
    if (!translates_to(child, entry.address, access) ||
        leaves_.ram.whole(entry.address, table.entry_bytes(), access).bytes == 0 ||
        delta_.any_hole(child.range()) || delta_.misses_any(child.range())) {
        return false;
    }
    std::uint64_t leaves = 0;
    std::uint64_t mappings = 0;
    mirror.leaves(child.range(), [&](LeafRef leaf) {
        ++leaves;
        mappings += leaf.joined() ? 0 : 1;
    });
    const bool joined = mirror.leaf_at(child.base).joined();
    drop(child);
    table.copy[slot] = value;
    ++table.leaves;
    leaves_.count -= leaves - 1;
    if (joined) {
        table.joined.set(slot);
    }
    delta_.merged(mappings, joined ? 0 : 1);
    return true;
}

bool LeafResize::translates_to(const Table& table, Gpa guest, Access access) const {
    for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
        const DecodedEntry entry = leaves_.mirror.entry(table, slot);
        const Gpa expected = guest + slot * table.entry_bytes();
        if (const Table* child = table.child(slot)) {
            if (!translates_to(*child, expected, access)) {
                return false;
            }
        } else if (entry.kind != Kind::leaf || entry.address != expected ||
                   (entry.access & table.access) != access) {
            return false;
        }
    }
    return true;
}

void LeafResize::drop(Table& table) {
    while (table.children != nullptr) {
        drop(*table.children->list.back());
    }
    leaves_.mirror.remove(table);
}

}  // namespace umbra::shadow
