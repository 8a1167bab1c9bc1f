// SPDX-License-Identifier: GPL-2.0-or-later
//
// The changes that a sync has found: leaves that go (removals) and leaves that come (additions),
// each in order of IOVA and merged where they touch. The host carries out all removals before all
// additions.
//
// The capacity is fixed and allocated once. A sync that finds more changes carries out the delta
// and begins another one.
//
// Threading: one thread at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "plugin/shadow/fixed_list.h"
#include "plugin/shadow/host_mapper.h"
#include "plugin/vtd/types.h"

namespace umbra::shadow {

// IOVAs [iova, iova + bytes), of which every leaf has gone.
struct Removal {
    Iova iova;
    std::uint64_t bytes = 0;
    std::uint64_t mapped_bytes = 0;  // less than `bytes` if parts lead to no RAM, or hold no leaf
    std::uint64_t mappings = 0;      // number of host mappings that start in the removal
    bool joined_before = false;      // the host mapping at its start began before it
    bool joined_after = false;       // the host mapping at its end goes on after it

    [[nodiscard]] Iova end() const { return iova + bytes; }
};

struct Delta {
    static constexpr std::size_t kCapacity = 1024;
    // As many additions are gathered if there are no removals. More would gain nothing and fall out
    // of the CPU's first cache. Removals are worth gathering, since several can become one call.
    static constexpr std::size_t kAdditionsAlone = 256;

    Delta() { removals.reserve(kCapacity); }
    [[nodiscard]] bool empty() const { return removals.empty() && additions.empty(); }
    [[nodiscard]] bool full() const {
        return removals.size() == kCapacity || room_for_additions() == 0;
    }
    [[nodiscard]] std::size_t room_for_additions() const {
        const std::size_t capacity = removals.empty() ? kAdditionsAlone : kCapacity;
        return capacity - std::min(capacity, additions.size());
    }
    // Whether a removal at `iova` is in order: after all removals and all additions of the delta.
    [[nodiscard]] bool can_remove(Iova iova) const {
        return (removals.empty() || removals.back().end() <= iova) &&
               (additions.empty() || additions.back().end() <= iova);
    }
    // Whether an addition at `iova` is in order: after all additions of the delta.
    [[nodiscard]] bool can_add(Iova iova) const {
        return additions.empty() || additions.back().end() <= iova;
    }
    // The addition that another one can be joined to; nullptr if there is none.
    [[nodiscard]] HostMapping* open_addition() {
        const bool open =
            !additions.empty() && (in_pieces.empty() || in_pieces.back() != additions.size() - 1);
        return open ? &additions.back() : nullptr;
    }
    void clear() {
        removals.clear();
        additions.clear();
        in_pieces.clear();
    }

    // True if the additions were mapped before, as when guest RAM moves. A device can be using
    // them, as it can use the rest of a split mapping. Not changed by clear().
    bool remaps = false;

    std::vector<Removal> removals;
    // Each addition takes one map call, unless it is a leaf that lies in several stretches of guest
    // RAM. `in_pieces` has the indices of those leaves, ascending. Of such an addition only `iova`
    // and `bytes` count; it takes a call for each stretch, and is mapped as a whole or not at all.
    FixedList<HostMapping, kCapacity> additions;
    std::vector<std::size_t> in_pieces;
};

}  // namespace umbra::shadow
