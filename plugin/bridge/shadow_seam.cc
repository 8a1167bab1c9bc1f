// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/bridge/shadow_seam.h"

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstring>

using umbra::shadow::DmaMode;
using umbra::shadow::HostMapping;
using umbra::shadow::HostResult;
using umbra::shadow::MapProgress;

namespace {

HostResult result_of(int error) {
    return error == 0 ? HostResult::success() : HostResult::failure(error);
}

UmbraMapping to_c(const HostMapping& mapping) {
    return {
        .iova = mapping.iova.value(),
        .bytes = mapping.bytes,
        // An address in this process: the number came out of a pointer in RamRuns::list().
        // NOLINTNEXTLINE(performance-no-int-to-ptr)
        .host = reinterpret_cast<void*>(mapping.host.value()),
        .guest = mapping.guest.value(),
        .access = static_cast<unsigned>(mapping.access),
    };
}

UmbraDmaMode to_c(DmaMode mode) {
    switch (mode) {
        case DmaMode::translated:
            return UMBRA_DMA_TRANSLATED;
        case DmaMode::pass_through:
            return UMBRA_DMA_PASS_THROUGH;
        case DmaMode::blocked:
            break;
    }
    return UMBRA_DMA_BLOCKED;
}

}  // namespace

umbra::SourceId UmbraShadowDevice::source_id() const {
    return umbra::SourceId(port_.source(port_.opaque));
}

void UmbraShadowDevice::set_mode(DmaMode mode) {
    port_.set_mode(port_.opaque, to_c(mode));
}

HostResult UmbraShadowDevice::map(const HostMapping& mapping) {
    return map_all({&mapping, 1}).result;
}

MapProgress UmbraShadowDevice::map_all(std::span<const HostMapping> mappings) {
    // As many at a time as stay in the CPU's first cache.
    std::array<UmbraMapping, 64> some;
    std::size_t done = 0;
    while (done < mappings.size()) {
        const std::size_t count = std::min(some.size(), mappings.size() - done);
        std::transform(mappings.begin() + static_cast<std::ptrdiff_t>(done),
                       mappings.begin() + static_cast<std::ptrdiff_t>(done + count), some.begin(),
                       [](const HostMapping& mapping) { return to_c(mapping); });
        int error = 0;
        const std::size_t mapped = port_.map(port_.opaque, some.data(), count, &error);
        done += mapped;
        if (mapped < count) {
            return {done, result_of(error)};
        }
    }
    return {.mapped = done};
}

HostResult UmbraShadowDevice::unmap(umbra::Iova iova, std::uint64_t bytes) {
    return result_of(port_.unmap(port_.opaque, iova.value(), bytes));
}

namespace umbra {
namespace {

using shadow::Event;
using shadow::Trouble;

const char* describe(Trouble trouble) {
    switch (trouble) {
        case Trouble::map_failed:
            return "the host refused to map what the guest's tables map; the device cannot reach "
                   "it until a retry succeeds";
        case Trouble::unmap_refused:
            return "the host refused to unmap what the guest no longer maps; the device can reach "
                   "it until a retry succeeds";
        case Trouble::not_ram:
            return "the guest maps addresses that are not RAM; they are not mapped on the host";
        case Trouble::mapping_budget:
            return "the guest maps more than max-mappings allows; the rest is not mapped";
        case Trouble::table_budget:
            return "the guest has more table pages than max-tables allows; the rest is not mapped";
        case Trouble::table_loop:
            return "a guest table refers to itself; it is not followed";
    }
    return "";
}

}  // namespace

void RamRuns::list(std::vector<shadow::RamRun>& runs) const {
    runs.clear();
    for (const UmbraRamRange& range : ram_.ranges()) {
        // The shadow maps whole pages; a piece's ragged ends cannot be.
        const std::uint64_t skipped = -range.address & (kPageSize - 1);
        if (range.size < skipped + kPageSize) {
            continue;
        }
        runs.push_back({
            .first = Gpa(range.address + skipped),
            .bytes = (range.size - skipped) & ~(kPageSize - 1),
            .host = HostAddress(reinterpret_cast<std::uintptr_t>(range.host) + skipped),
            .read_only = !range.writable,
        });
    }
}

void OperatorEvents::trouble(const Event& event) {
    std::array<char, 768> text{};
    std::array<char, 96> cause{};
    if (event.error != 0) {
        std::snprintf(cause.data(), cause.size(), " (%s)", std::strerror(event.error));
    }
    std::array<char, 96> others{};
    if (event.untold != 0) {
        std::snprintf(others.data(), others.size(),
                      " Others like it that were not told of: %" PRIu64 ".", event.untold);
    }
    std::snprintf(text.data(), text.size(),
                  "domain %u, IOVA 0x%" PRIx64 "-0x%" PRIx64 ": %s%s. Cause: %s. Remedy: %s.%s",
                  static_cast<unsigned>(event.domain), event.range.first.value(),
                  event.range.last.value(), describe(event.trouble), cause.data(), event.limit,
                  event.remedy, others.data());
    platform_.report(platform_.opaque, true, text.data());
}

void OperatorEvents::healed(DomainId domain, Trouble trouble) {
    std::array<char, 256> text{};
    std::snprintf(text.data(), text.size(), "domain %u has healed; it was: %s",
                  static_cast<unsigned>(domain), describe(trouble));
    platform_.report(platform_.opaque, false, text.data());
}

void OperatorEvents::stop_machine(const Event& /*event*/) {
    stopping_ = platform_.stop_machine(platform_.opaque) || stopping_;
}

}  // namespace umbra
