// SPDX-License-Identifier: GPL-2.0-or-later
//
// The leaves of one guest domain: the mirror that holds them, and the guest RAM that they lead to.
// Both together say what the host is meant to have mapped. The parts of a sync share and change
// them.
//
// Threading: one thread at a time.
#pragma once

#include <cstdint>

#include "plugin/shadow/mirror.h"
#include "plugin/shadow/ram_snapshot.h"
#include "plugin/vtd/second_stage.h"

namespace umbra::shadow {

struct DomainLeaves {
    Mirror mirror;
    RamSnapshot ram{};

    std::uint64_t count = 0;
    std::uint64_t irregular = 0;  // leaves that are not in one stretch of RAM as a whole
    bool any_joined = false;      // true for good once a leaf was joined to the one before it

    // The leaves [first, end) of the table are joined, each to the leaf before it.
    void mark_joined(Table& table, unsigned first, unsigned end) {
        if (first < end) {
            table.joined.set(first, end - 1);
            any_joined = true;
        }
    }
    // The leaf right after the one at `slot`, if it is joined to that; no leaf otherwise.
    [[nodiscard]] LeafRef joined_successor(Table& table, unsigned slot) const {
        if (!any_joined) {
            return {};
        }
        LeafRef next = {&table, slot + 1};
        if (slot + 1 == kEntriesPerTable || table.child(slot + 1) != nullptr) {
            next = mirror.leaf_at(table.entry_iova(slot) + table.entry_bytes());
        }
        return next && next.joined() ? next : LeafRef{};
    }
    // Whether the host maps a leaf that leads to [guest, guest + bytes) in the same way with access
    // `before` and with access `after`.
    [[nodiscard]] bool same_on_host(Access before, Access after, Gpa guest,
                                    std::uint64_t bytes) const {
        return before == after || RamSnapshot::same(ram, before, ram, after, guest, bytes);
    }
};

}  // namespace umbra::shadow
