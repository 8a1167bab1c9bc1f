// SPDX-License-Identifier: GPL-2.0-or-later
//
// A host mapper carries the shadow's decisions out: it makes a range of IOVAs of one device reach
// host memory, or reach nothing. Behind it stands a VFIO container, a set of IOMMU notifiers, or a
// recorder in tests. The shadow owns the interface; plugin/bridge and tests/support implement it.
//
// Rules that the shadow keeps (they are those of VFIO type1v2 and iommufd):
//   * a map never covers an IOVA at which this mapper has something live;
//   * an unmap never bisects a mapping: what was mapped by one call is unmapped as a whole;
//   * an unmap range may contain any number of mappings, and holes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "plugin/vtd/types.h"

namespace umbra::shadow {

// Outcome of a host call: success, or a positive errno value as the kernel gives it.
class [[nodiscard]] HostResult {
  public:
    static constexpr HostResult success() { return HostResult(0); }
    // `error` is a positive errno value, for example ENOSPC when type1's dma_entry_limit is hit.
    static constexpr HostResult failure(int error) { return HostResult(error); }

    [[nodiscard]] constexpr bool ok() const { return error_ == 0; }
    [[nodiscard]] constexpr int error() const { return error_; }

  private:
    constexpr explicit HostResult(int error) : error_(error) {}
    int error_;
};

// IOVAs [iova, iova + bytes) reach host memory [host, host + bytes), which is guest memory
// [guest, guest + bytes). All four are multiples of 4 KiB; `bytes` is not 0 and nothing wraps.
// `access` is not none.
struct HostMapping {
    Iova iova;
    std::uint64_t bytes = 0;
    HostAddress host;
    Gpa guest;
    Access access = Access::none;

    [[nodiscard]] Iova end() const { return iova + bytes; }

    friend bool operator==(const HostMapping&, const HostMapping&) = default;
};

// How far a call for several mappings came.
struct [[nodiscard]] MapProgress {
    std::size_t mapped = 0;                     // from the first one on
    HostResult result = HostResult::success();  // of the one after them, if there is one
};

// Threading: called only from the thread that drives the shadow (QEMU: with the big lock held).
class HostMapper {
  public:
    virtual ~HostMapper() = default;

    // On failure nothing of `mapping` is mapped.
    virtual HostResult map(const HostMapping& mapping) = 0;

    // Maps in order until one fails; nothing of that one and of those after it is mapped. For
    // mappers to whom a call costs more than what it does.
    virtual MapProgress map_all(std::span<const HostMapping> mappings) {
        for (std::size_t i = 0; i < mappings.size(); ++i) {
            if (const HostResult result = map(mappings[i]); !result.ok()) {
                return {i, result};
            }
        }
        return {.mapped = mappings.size()};
    }

    // Removes every mapping inside [iova, iova + bytes). Success if there is none. On failure any
    // part of them may be left; the shadow asks again later.
    virtual HostResult unmap(Iova iova, std::uint64_t bytes) = 0;

    // Calls `visit` for everything that is mapped now, in order of IOVA, if this mapper can tell.
    // False if it cannot (the kernel has no such query); then nothing was visited.
    using Visitor = std::function<void(const HostMapping&)>;
    [[nodiscard]] virtual bool visit_mappings(const Visitor& /*visit*/) const { return false; }

  protected:
    HostMapper() = default;
    HostMapper(const HostMapper&) = default;
    HostMapper& operator=(const HostMapper&) = default;
};

}  // namespace umbra::shadow
