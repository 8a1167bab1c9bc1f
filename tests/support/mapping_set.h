// SPDX-License-Identifier: GPL-2.0-or-later
//
// A set of host mappings under the rules of VFIO type1v2 and iommufd: they do not overlap, and an
// unmap takes whole mappings only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>

#include "plugin/shadow/host_mapper.h"

namespace umbra::host {

class MappingSet {
  public:
    // False, without a change, if a mapping overlaps already (the kernel's answer is EEXIST).
    [[nodiscard]] bool insert(const shadow::HostMapping& mapping);

    // Whether a mapping lies partly inside and partly outside. To an unmap of such a range, type1v2
    // answers EINVAL and iommufd ENOENT.
    [[nodiscard]] bool bisected_by(Iova iova, std::uint64_t bytes) const;

    // Removes the mappings inside [iova, iova + bytes), and returns how many.
    std::size_t erase(Iova iova, std::uint64_t bytes);

    // The mapping that covers `iova`.
    [[nodiscard]] std::optional<shadow::HostMapping> find(Iova iova) const;

    [[nodiscard]] std::size_t size() const { return mappings_.size(); }
    void clear() { mappings_.clear(); }

    // In order of IOVA.
    template <class Visit>
    void visit(Visit&& visit) const {
        for (const auto& [iova, mapping] : mappings_) {
            visit(mapping);
        }
    }
    // The mappings that lie, whole or in part, inside [iova, iova + bytes), in order of IOVA.
    template <class Visit>
    void visit(Iova iova, std::uint64_t bytes, Visit&& visit) const {
        for (auto at = first_at_or_after(iova); at != mappings_.end() && at->first < iova + bytes;
             ++at) {
            visit(at->second);
        }
    }

  private:
    using Map = std::map<Iova, shadow::HostMapping>;
    // The first mapping that ends above `iova`.
    [[nodiscard]] Map::const_iterator first_at_or_after(Iova iova) const;

    Map mappings_;
};

}  // namespace umbra::host
