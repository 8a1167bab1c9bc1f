// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/planner.h"

#include <algorithm>

namespace umbra::shadow {
namespace {

// A rest of up to this size, in bytes, is one mapping. So is what lies between an end of a larger
// rest and the next multiple of the size.
constexpr std::uint64_t kWholeRest = std::uint64_t{64} << 10;

// The size of the mapping that begins at `at`, in a rest that ends at `end`. Leaves are naturally
// aligned, so a block never ends inside one.
std::uint64_t block_at(Iova at, Iova end) {
    const std::uint64_t left = end - at;
    if (!at.is_aligned(kWholeRest) || left < kWholeRest) {
        return std::min(left, kWholeRest - at.offset_in(kWholeRest));
    }
    std::uint64_t block = kWholeRest;
    while (2 * block <= left && at.is_aligned(2 * block)) {
        block *= 2;
    }
    return block;
}

}  // namespace

Plan::Plan() {
    calls_.reserve(Delta::kCapacity);
    parts_.reserve(Delta::kCapacity);
    rests_.reserve(2 * Delta::kCapacity);
}

void Plan::build(std::span<const Removal> removals, const Mirror& mirror, const RamSnapshot& ram) {
    calls_.clear();
    parts_.clear();
    rests_.clear();
    for (const Removal& removal : removals) {
        add_part(removal, mirror, ram);
    }
    join_parts(mirror);
}

void Plan::add_part(const Removal& removal, const Mirror& mirror, const RamSnapshot& ram) {
    // This removal can begin where a rest of the part before ends. Then both removals cut the same
    // mapping, and belong to one part.
    const bool same_mapping = removal.joined_before && !parts_.empty() &&
                              parts_.back().rests != 0 && parts_.back().end() == removal.iova;
    if (!same_mapping) {
        parts_.push_back({.iova = removal.iova, .first_rest = rests_.size()});
    }
    UnmapPart& part = parts_.back();
    if (removal.joined_before && !same_mapping) {
        if (const LeafRef before = mirror.leaf_at(removal.iova - 1)) {
            const LeafRef first = mirror.first_of_run(before);
            part.iova = first.iova();
            part.bytes = removal.iova - first.iova();
            ++part.mappings;
            add_rest(first, removal.iova, true, part, mirror, ram);
        }
    }
    part.bytes += removal.bytes;
    part.mapped_bytes += removal.mapped_bytes;
    part.mappings += removal.mappings;
    if (removal.joined_after) {
        if (const LeafRef after = mirror.leaf_at(removal.end())) {
            const Iova end = mirror.end_of_run(after);
            part.bytes += end - removal.end();
            add_rest(after, end, false, part, mirror, ram);
        }
    }
}

void Plan::add_rest(LeafRef first, Iova end, bool first_of_mapping, UnmapPart& part,
                    const Mirror& mirror, const RamSnapshot& ram) {
    const vtd::DecodedEntry leaf = mirror.entry(*first.table, first.slot);
    const std::uint64_t bytes = end - first.iova();
    // All leaves of a rest lie in one run of RAM and have the same access, because only such leaves
    // are joined. When RAM changes, RamFollower first maps anew those that it divides.
    const RamPiece piece = ram.whole(leaf.address, bytes, leaf.access & first.table->access);
    part.mapped_bytes += bytes;
    std::uint64_t offset = 0;
    while (offset < bytes) {
        const Iova at = first.iova() + offset;
        const std::uint64_t length = bytes <= kWholeRest ? bytes : block_at(at, end);
        if (offset != 0) {
            const LeafRef begin = mirror.leaf_at(at);
            begin.table->joined.clear(begin.slot);
        }
        rests_.push_back({{at, length, piece.host + offset, leaf.address + offset, piece.access},
                          first_of_mapping && offset == 0});
        ++part.rests;
        offset += length;
    }
}

void Plan::join_parts(const Mirror& mirror) {
    for (std::size_t i = 0; i < parts_.size(); ++i) {
        const UnmapPart& part = parts_[i];
        if (!calls_.empty()) {
            UnmapCall& call = calls_.back();
            const bool touches = call.end() == part.iova;
            if (touches || !mirror.any_leaf({call.end(), part.iova - 1})) {
                call.bytes = part.end() - call.iova;
                ++call.parts;
                continue;
            }
        }
        calls_.push_back({part.iova, part.bytes, i, 1});
    }
}

}  // namespace umbra::shadow
