// SPDX-License-Identifier: GPL-2.0-or-later
//
// A host mapper without a host: it keeps account of the mappings, refuses each call that VFIO
// type1v2 would refuse, and fails on a test's request.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "plugin/shadow/host_mapper.h"
#include "tests/support/mapping_set.h"

namespace umbra::host {

class Recorder final : public shadow::HostMapper {
  public:
    // EEXIST over a live mapping, EINVAL if malformed or over the interrupt range or a hole, ENOSPC
    // beyond entry_limit, else the answer of `fail`.
    shadow::HostResult map(const shadow::HostMapping& mapping) override;
    // EINVAL if the range bisects a mapping or is malformed, else the answer of `fail`.
    shadow::HostResult unmap(Iova iova, std::uint64_t bytes) override;
    [[nodiscard]] std::span<const IovaRange> holes() const override { return host_holes; }
    [[nodiscard]] bool visit_mappings(const Visitor& visit) const override;

    [[nodiscard]] const MappingSet& mappings() const { return mappings_; }
    // Drops all mappings, as closing and opening the container does.
    void clear() { mappings_.clear(); }

    // Calls that broke a rule: a map over a live mapping or a hole, an unmap that bisects a
    // mapping, sizes or addresses that are no multiples of 4 KiB, an access of none. The shadow
    // makes such a call only after a call that failed.
    [[nodiscard]] std::uint64_t violations() const { return violations_; }
    [[nodiscard]] std::uint64_t map_calls() const { return map_calls_; }
    [[nodiscard]] std::uint64_t unmap_calls() const { return unmap_calls_; }

    // As VFIO's mappings do.
    bool reads_come_with_writes = false;
    [[nodiscard]] bool write_implies_read() const override { return reads_come_with_writes; }

    // The most mappings at a time, as vfio_iommu_type1.dma_entry_limit sets it.
    std::size_t entry_limit = std::numeric_limits<std::size_t>::max();

    // IOVAs that the host cannot map. Set before the device is added.
    std::vector<IovaRange> host_holes;

    // Asked before each call that no rule refuses: a positive errno fails it, 0 lets it through.
    std::function<int(bool is_map, Iova iova, std::uint64_t bytes)> fail;
    // Called with each mapping that an unmap is about to remove.
    std::function<void(const shadow::HostMapping&)> on_unmapped;

  private:
    MappingSet mappings_;
    std::uint64_t violations_ = 0;
    std::uint64_t map_calls_ = 0;
    std::uint64_t unmap_calls_ = 0;
};

}  // namespace umbra::host
