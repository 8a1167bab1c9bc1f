// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/planner.h"

namespace umbra::shadow {

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
    rests_.push_back(
        {{first.iova(), bytes, piece.host, leaf.address, piece.access}, first_of_mapping});
    ++part.rests;
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
