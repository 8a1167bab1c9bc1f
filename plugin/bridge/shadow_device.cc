// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/bridge/shadow_device.h"

#include <algorithm>
#include <array>
#include <cstddef>

#include "plugin/bridge/convert.h"

using umbra::bridge::to_c;
using umbra::shadow::DmaMode;
using umbra::shadow::HostMapping;
using umbra::shadow::HostResult;
using umbra::shadow::MapProgress;

namespace {

HostResult result_of(int error) {
    return error == 0 ? HostResult::success() : HostResult::failure(error);
}

}  // namespace

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
