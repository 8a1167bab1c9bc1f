// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/support/mapping_set.h"

#include <iterator>

namespace umbra::host {

using shadow::HostMapping;

MappingSet::Map::const_iterator MappingSet::first_at_or_after(Iova iova) const {
    auto at = mappings_.upper_bound(iova);
    if (at != mappings_.begin()) {
        const auto before = std::prev(at);
        if (iova - before->first < before->second.bytes) {
            return before;
        }
    }
    return at;
}

bool MappingSet::insert(const HostMapping& mapping) {
    const auto at = first_at_or_after(mapping.iova);
    if (at != mappings_.end() && at->first < mapping.iova + mapping.bytes) {
        return false;
    }
    mappings_.emplace_hint(at, mapping.iova, mapping);
    return true;
}

bool MappingSet::bisected_by(Iova iova, std::uint64_t bytes) const {
    const auto crosses = [this](Iova edge) {
        const auto at = first_at_or_after(edge);
        return at != mappings_.end() && at->first < edge;
    };
    return crosses(iova) || crosses(iova + bytes);
}

std::size_t MappingSet::erase(Iova iova, std::uint64_t bytes) {
    auto at = mappings_.lower_bound(iova);
    std::size_t count = 0;
    while (at != mappings_.end() && at->first - iova < bytes &&
           at->second.bytes <= bytes - (at->first - iova)) {
        at = mappings_.erase(at);
        ++count;
    }
    return count;
}

std::optional<HostMapping> MappingSet::find(Iova iova) const {
    const auto at = first_at_or_after(iova);
    if (at == mappings_.end() || at->first > iova) {
        return std::nullopt;
    }
    return at->second;
}

}  // namespace umbra::host
