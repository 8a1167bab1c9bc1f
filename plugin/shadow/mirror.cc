// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/mirror.h"

#include <algorithm>

namespace umbra::shadow {

using vtd::level_index;

namespace {

constexpr std::size_t kPointerBytes = sizeof(void*);

}  // namespace

Mirror::Mirror(const GuestMemory& memory, PageArena& arena, TableBudget& unit_budget,
               std::uint32_t domain_limit, vtd::EntryFormat format, Gpa root, unsigned levels)
    : memory_(memory),
      arena_(arena),
      unit_budget_(unit_budget),
      domain_limit_(domain_limit),
      format_(format),
      memory_generation_(memory.generation()),
      root_(allocate()) {
    root_->address = root;
    root_->level = static_cast<std::uint8_t>(levels);
    root_->access = Access::read_write;
    root_->guest = root_->copy == nullptr ? nullptr : guest_page(root);
}

Mirror::~Mirror() {
    free_below(*root_);
    free(*root_);
}

Table* Mirror::allocate() {
    if (free_ == nullptr) {
        chunks_.push_back(std::make_unique<Table[]>(kTablesPerChunk));
        for (std::size_t i = kTablesPerChunk; i-- > 0;) {
            Table& table = chunks_.back()[i];
            table.parent = free_;
            free_ = &table;
        }
    }
    Table* table = free_;
    free_ = table->parent;
    *table = Table{};
    table->copy = arena_.acquire();
    ++tables_;
    ++unit_budget_.used;
    return table;
}

void Mirror::free(Table& table) {
    if (table.copy != nullptr) {
        arena_.release(table.copy);
    }
    --tables_;
    --unit_budget_.used;
    table = Table{};
    table.parent = free_;
    free_ = &table;
}

void Mirror::free_below(Table& table) {
    if (table.children == nullptr) {
        return;
    }
    for (Table* child : table.children->list) {
        free_below(*child);
        free(*child);
    }
    table.children.reset();
}

std::uint64_t Mirror::bytes() const {
    return tables_ * kPageSize + chunks_.size() * kTablesPerChunk * sizeof(Table) + children_bytes_;
}

const std::uint64_t* Mirror::guest_page(Gpa address) const {
    return reinterpret_cast<const std::uint64_t*>(memory_.page_pointer(address));
}

void Mirror::refresh_pointers() {
    const std::uint64_t generation = memory_.generation();
    if (generation == memory_generation_) {
        return;
    }
    memory_generation_ = generation;
    each_table([this](Table& table) {
        table.guest = table.copy == nullptr ? nullptr : guest_page(table.address);
    });
}

Mirror::Refusal Mirror::refusal(const Table& parent, Gpa address) const {
    for (const Table* ancestor = &parent; ancestor != nullptr; ancestor = ancestor->parent) {
        if (ancestor->address == address) {
            return Refusal::loop;
        }
    }
    if (guest_page(address) == nullptr) {
        return Refusal::not_ram;
    }
    return Refusal::none;
}

Table* Mirror::add_child(Table& parent, unsigned slot, Gpa address, Access access) {
    if (!budget_left()) {
        return nullptr;
    }
    Table* table = allocate();
    if (table->copy == nullptr) {
        free(*table);
        return nullptr;
    }
    table->guest = guest_page(address);
    table->address = address;
    table->level = static_cast<std::uint8_t>(parent.level - 1);
    table->access = access;
    table->parent = &parent;
    table->slot = static_cast<std::uint16_t>(slot);
    table->base = parent.entry_iova(slot);
    if (parent.children == nullptr) {
        parent.children = std::make_unique<Children>();
        children_bytes_ += sizeof(Children);
    }
    Children& children = *parent.children;
    const std::size_t capacity = children.list.capacity();
    children.list.insert(children.list.begin() + children.present.rank(slot), table);
    children.present.set(slot);
    children_bytes_ += (children.list.capacity() - capacity) * kPointerBytes;
    return table;
}

void Mirror::remove(Table& table) {
    Table& parent = *table.parent;
    Children& children = *parent.children;
    children.list.erase(children.list.begin() + children.present.rank(table.slot));
    children.present.clear(table.slot);
    if (children.list.empty()) {
        children_bytes_ -= sizeof(Children) + children.list.capacity() * kPointerBytes;
        parent.children.reset();
    }
    free(table);
}

LeafRef Mirror::leaf_at(Iova iova) const {
    Table* table = root_;
    if (iova > table->last()) {
        return {};
    }
    while (true) {
        const unsigned slot = level_index(iova, table->level);
        if (Table* child = table->child(slot)) {
            table = child;
            continue;
        }
        return is_leaf(*table, slot) ? LeafRef{table, slot} : LeafRef{};
    }
}

Table* Mirror::table_at(Iova iova, unsigned level) const {
    Table* table = root_;
    while (table != nullptr && table->level > level) {
        table = table->child(level_index(iova, table->level));
    }
    return table;
}

bool Mirror::any_leaf_below(const Table& table, IovaRange range) const {
    if (range.first > table.last()) {
        return false;
    }
    const unsigned first = range.first <= table.base ? 0 : level_index(range.first, table.level);
    const unsigned last =
        range.last >= table.last() ? kEntriesPerTable - 1 : level_index(range.last, table.level);
    if (table.leaves != 0) {
        if (first == 0 && last == kEntriesPerTable - 1) {
            return true;
        }
        for (unsigned slot = first; slot <= last; ++slot) {
            if (is_leaf(table, slot)) {
                return true;
            }
        }
    }
    if (table.children != nullptr) {
        const auto& list = table.children->list;
        for (std::size_t i = table.children->present.rank(first);
             i < list.size() && list[i]->slot <= last; ++i) {
            if (any_leaf_below(*list[i], range)) {
                return true;
            }
        }
    }
    return false;
}

LeafRef Mirror::first_of_run(LeafRef leaf) const {
    while (leaf.joined()) {
        // Leaves of one mapping touch each other, so the leaf before ends where this one starts.
        leaf = leaf.slot > 0 && is_leaf(*leaf.table, leaf.slot - 1)
                   ? LeafRef{leaf.table, leaf.slot - 1}
                   : leaf_at(leaf.iova() - 1);
    }
    return leaf;
}

Iova Mirror::end_of_run(LeafRef leaf) const {
    while (true) {
        const Iova end = leaf.iova() + leaf.bytes();
        LeafRef next;
        if (leaf.slot + 1 < kEntriesPerTable && is_leaf(*leaf.table, leaf.slot + 1)) {
            next = {leaf.table, leaf.slot + 1};
        } else {
            next = leaf_at(end);
        }
        if (!next || !next.joined()) {
            return end;
        }
        leaf = next;
    }
}

}  // namespace umbra::shadow
