// SPDX-License-Identifier: GPL-2.0-or-later
//
// A host mapper carries the shadow's decisions out: it makes a range of one device's IOVAs reach
// host memory, or reach nothing. A VFIO container, a set of IOMMU notifiers or a recorder of tests
// stands behind a host mapper.
//
// The shadow keeps the rules of VFIO type1v2 and iommufd:
//   * a map never covers an IOVA at which this mapper has something live;
//   * an unmap never bisects a mapping: a mapping made by one call is unmapped as a whole;
//   * no map touches an IOVA that the host cannot map (iova_holes.h);
//   * an unmap range may contain any number of mappings, and holes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "plugin/vtd/types.h"

namespace umbra::shadow {

// The result of a host call: success, or a positive errno value as the kernel gives it.
class [[nodiscard]] HostResult {
  public:
    static constexpr HostResult success() { return HostResult(0); }
    // `error` is a positive errno value. ENOSPC says that the host takes no more mappings, as when
    // type1's dma_entry_limit is hit.
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

// The result of a call for several mappings.
struct [[nodiscard]] MapProgress {
    std::size_t mapped = 0;                     // how many succeeded, from the first one on
    HostResult result = HostResult::success();  // of the next one, if not all succeeded
};

// Threading: called only from the thread that drives the shadow (QEMU: with the big lock held).
class HostMapper {
  public:
    virtual ~HostMapper() = default;

    // On failure nothing of `mapping` is mapped.
    virtual HostResult map(const HostMapping& mapping) = 0;

    // Maps in order until one fails. Nothing of the failed one and of those after it is mapped. A
    // mapper overrides map_all() if many mappings in one call are cheaper than many calls.
    virtual MapProgress map_all(std::span<const HostMapping> mappings) {
        for (std::size_t i = 0; i < mappings.size(); ++i) {
            if (const HostResult result = map(mappings[i]); !result.ok()) {
                return {i, result};
            }
        }
        return {.mapped = mappings.size()};
    }

    // Removes every mapping inside [iova, iova + bytes), and succeeds if there is none. On failure
    // some of the mappings may be left; the shadow asks again later.
    virtual HostResult unmap(Iova iova, std::uint64_t bytes) = 0;

    // The IOVAs that the host cannot map for this device, besides the interrupt range. Constant,
    // and valid, while the mapper exists.
    [[nodiscard]] virtual std::span<const IovaRange> holes() const { return {}; }

    // Whether a mapping for writes alone lets reads through as well, as VFIO's do. Constant while
    // the mapper exists.
    [[nodiscard]] virtual bool write_implies_read() const { return false; }

    // Calls `visit` for every mapping that exists, in order of IOVA. Returns false, and visits
    // nothing, if the mapper cannot tell (the kernel has no such query).
    using Visitor = std::function<void(const HostMapping&)>;
    [[nodiscard]] virtual bool visit_mappings(const Visitor& /*visit*/) const { return false; }

  protected:
    HostMapper() = default;
    HostMapper(const HostMapper&) = default;
    HostMapper& operator=(const HostMapper&) = default;
};

}  // namespace umbra::shadow
