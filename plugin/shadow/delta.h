// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a sync found to be needed: leaves that go and leaves that come, in order of IOVA, already
// merged where they touch. All that goes goes first. Fixed capacity, allocated once: a sync that
// finds more carries out what it has and goes on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

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

// One map call; or, if `in_pieces`, one leaf that crosses from one stretch of guest RAM to another
// and takes several. Then only `iova` and `bytes` of `mapping` count. Such a leaf is mapped with
// all its pieces or not at all.
struct Addition {
    HostMapping mapping;
    bool in_pieces = false;

    [[nodiscard]] Iova end() const { return mapping.iova + mapping.bytes; }
};

struct Delta {
    static constexpr std::size_t kCapacity = 1024;
    // Nothing is gained by gathering more additions than this, and they would fall out of the CPU's
    // first cache; removals are worth gathering, since they may become one call.
    static constexpr std::size_t kAdditionsAlone = 256;

    Delta() {
        removals.reserve(kCapacity);
        additions.reserve(kCapacity);
    }
    [[nodiscard]] bool empty() const { return removals.empty() && additions.empty(); }
    [[nodiscard]] bool full() const {
        return removals.size() == kCapacity ||
               additions.size() == (removals.empty() ? kAdditionsAlone : kCapacity);
    }
    // Whether what goes at `iova` comes after all that is here already, in order and in time.
    [[nodiscard]] bool can_remove(Iova iova) const {
        return (removals.empty() || removals.back().end() <= iova) &&
               (additions.empty() || additions.back().end() <= iova);
    }
    [[nodiscard]] bool can_add(Iova iova) const {
        return additions.empty() || additions.back().end() <= iova;
    }
    void clear() {
        removals.clear();
        additions.clear();
    }

    std::vector<Removal> removals;
    std::vector<Addition> additions;
};

}  // namespace umbra::shadow
