// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a sync found to be needed: leaves that go and leaves that come, in order of IOVA, already
// merged where they touch. All that goes goes first. Fixed capacity, allocated once: a sync that
// finds more carries out what it has and goes on.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "plugin/shadow/fixed_list.h"
#include "plugin/shadow/host_mapper.h"
#include "plugin/vtd/types.h"

namespace umbra::shadow {

// IOVAs [iova, iova + bytes) of which every leaf is gone.
struct Removal {
    Iova iova;
    std::uint64_t bytes = 0;
    std::uint64_t mapped_bytes = 0;  // less than `bytes` if leaves were not RAM, or with holes
    std::uint64_t mappings = 0;      // host mappings that start here
    // The mapping at its start began before it; the mapping at its end goes on after it.
    bool joined_before = false;
    bool joined_after = false;

    [[nodiscard]] Iova end() const { return iova + bytes; }
};

struct Delta {
    static constexpr std::size_t kCapacity = 1024;
    // Nothing is gained by gathering more additions than this, and they would fall out of the CPU's
    // first cache; removals are worth gathering, since they may become one call.
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
    // Whether what goes at `iova` comes after all that is here already, in order and in time.
    [[nodiscard]] bool can_remove(Iova iova) const {
        return (removals.empty() || removals.back().end() <= iova) &&
               (additions.empty() || additions.back().end() <= iova);
    }
    [[nodiscard]] bool can_add(Iova iova) const {
        return additions.empty() || additions.back().end() <= iova;
    }
    // The addition that one more can be joined to.
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

    // Whether what comes was mapped before, as when guest RAM moves: then it is no less urgent than
    // the rest of a split. Outlasts clear().
    bool remaps = false;

    std::vector<Removal> removals;
    // One map call each, but for leaves that cross from one stretch of guest RAM to another and
    // take several calls. `in_pieces` has the indices of those, ascending; of them only `iova` and
    // `bytes` count. Such a leaf is mapped with all its pieces or not at all.
    FixedList<HostMapping, kCapacity> additions;
    std::vector<std::size_t> in_pieces;
};

}  // namespace umbra::shadow
