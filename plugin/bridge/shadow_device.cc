// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/bridge/shadow_device.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "plugin/bridge/convert.h"

using umbra::Iova;
using umbra::IovaRange;
using umbra::bridge::to_c;
using umbra::shadow::DmaMode;
using umbra::shadow::HostMapping;
using umbra::shadow::HostResult;
using umbra::shadow::MapProgress;

namespace {

HostResult result_of(int error) {
    return error == 0 ? HostResult::success() : HostResult::failure(error);
}

// What lies beside `usable`; nothing if that is empty.
std::vector<IovaRange> holes_beside(std::span<const UmbraIovaRange> usable) {
    std::vector<UmbraIovaRange> ranges(usable.begin(), usable.end());
    std::sort(ranges.begin(), ranges.end(),
              [](const UmbraIovaRange& a, const UmbraIovaRange& b) { return a.first < b.first; });
    std::vector<IovaRange> holes;
    std::uint64_t next = 0;  // the first IOVA after the ranges so far
    for (const UmbraIovaRange& range : ranges) {
        if (range.first > next) {
            holes.push_back({Iova(next), Iova(range.first - 1)});
        }
        if (range.last == ~std::uint64_t{0}) {
            return holes;
        }
        next = std::max(next, range.last + 1);
    }
    if (next != 0) {
        holes.push_back({Iova(next), IovaRange::everything().last});
    }
    return holes;
}

}  // namespace

UmbraShadowDevice::UmbraShadowDevice(const UmbraHostMapper& mapper)
    : mapper_(mapper), holes_(holes_beside({mapper.usable, mapper.usable_count})) {}

umbra::SourceId UmbraShadowDevice::source_id() const {
    return umbra::SourceId(mapper_.source(mapper_.opaque));
}

void UmbraShadowDevice::set_mode(DmaMode mode) {
    mapper_.set_mode(mapper_.opaque, to_c(mode));
}

HostResult UmbraShadowDevice::map(const HostMapping& mapping) {
    return map_all({&mapping, 1}).result;
}

MapProgress UmbraShadowDevice::map_all(std::span<const HostMapping> mappings) {
    // As many mappings at a time as stay in the CPU's first cache. Each is written before use.
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init)
    std::array<UmbraHostMapping, 64> some;
    std::size_t done = 0;
    while (done < mappings.size()) {
        const auto next = mappings.subspan(done, std::min(some.size(), mappings.size() - done));
        std::transform(next.begin(), next.end(), some.begin(),
                       [](const HostMapping& mapping) { return to_c(mapping); });
        int error = 0;
        const std::size_t mapped = mapper_.map(mapper_.opaque, some.data(), next.size(), &error);
        done += mapped;
        if (mapped < next.size()) {
            return {done, result_of(error)};
        }
    }
    return {.mapped = done};
}

HostResult UmbraShadowDevice::unmap(umbra::Iova iova, std::uint64_t bytes) {
    return result_of(mapper_.unmap(mapper_.opaque, iova.value(), bytes));
}
