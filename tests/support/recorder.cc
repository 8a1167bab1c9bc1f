// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/support/recorder.h"

#include <algorithm>
#include <cerrno>

namespace umbra::host {

using shadow::HostMapping;
using shadow::HostResult;

namespace {

// As every host of the x86 family has it reserved for interrupts.
constexpr IovaRange kInterrupts = {Iova(0xfee00000), Iova(0xfeefffff)};

bool well_formed(Iova iova, std::uint64_t bytes) {
    return bytes != 0 && iova.is_aligned(kPageSize) && bytes % kPageSize == 0 &&
           (iova + (bytes - 1)) >= iova;
}

}  // namespace

HostResult Recorder::map(const HostMapping& mapping) {
    ++map_calls_;
    if (!well_formed(mapping.iova, mapping.bytes) || !mapping.host.is_aligned(kPageSize) ||
        !mapping.guest.is_aligned(kPageSize) || mapping.access == Access::none) {
        ++violations_;
        return HostResult::failure(EINVAL);
    }
    const IovaRange range = {mapping.iova, mapping.end() - 1};
    if (range.overlaps(kInterrupts) ||
        std::any_of(host_holes.begin(), host_holes.end(),
                    [&](IovaRange hole) { return hole.overlaps(range); })) {
        ++violations_;
        return HostResult::failure(EINVAL);
    }
    if (mappings_.size() >= entry_limit) {
        return HostResult::failure(ENOSPC);
    }
    if (fail) {
        if (const int error = fail(true, mapping.iova, mapping.bytes); error != 0) {
            return HostResult::failure(error);
        }
    }
    if (!mappings_.insert(mapping)) {
        ++violations_;
        return HostResult::failure(EEXIST);
    }
    return HostResult::success();
}

HostResult Recorder::unmap(Iova iova, std::uint64_t bytes) {
    ++unmap_calls_;
    if (!well_formed(iova, bytes) || mappings_.bisected_by(iova, bytes)) {
        ++violations_;
        return HostResult::failure(EINVAL);
    }
    if (fail) {
        if (const int error = fail(false, iova, bytes); error != 0) {
            return HostResult::failure(error);
        }
    }
    if (on_unmapped) {
        mappings_.visit(iova, bytes, on_unmapped);
    }
    mappings_.erase(iova, bytes);
    return HostResult::success();
}

bool Recorder::visit_mappings(const Visitor& visit) const {
    mappings_.visit(visit);
    return true;
}

}  // namespace umbra::host
