// SPDX-License-Identifier: GPL-2.0-or-later
//
// Invalidation descriptors of 128 bits as a guest's driver writes them (specification 6.5.2).
#pragma once

#include <cstdint>

#include "plugin/vtd/types.h"

namespace umbra::driver {

struct Descriptor {
    std::uint64_t low = 0;
    std::uint64_t high = 0;

    static constexpr std::uint64_t kBytes = 16;

    static constexpr Descriptor context_global() { return {.low = kContext | kGlobal}; }
    static constexpr Descriptor context_domain(std::uint16_t domain) {
        return {.low = kContext | kDomain | did(domain)};
    }
    // `mask` is FM: the function bits of `source` that are ignored.
    static constexpr Descriptor context_device(std::uint16_t domain, SourceId source,
                                               unsigned mask = 0) {
        return {.low = kContext | kDeviceOrPages | did(domain) |
                       std::uint64_t{source.value()} << 32 | std::uint64_t{mask} << 48};
    }
    static constexpr Descriptor iotlb_global() { return {.low = kIotlb | kGlobal}; }
    static constexpr Descriptor iotlb_domain(std::uint16_t domain) {
        return {.low = kIotlb | kDomain | did(domain)};
    }
    // 2^address_mask pages; `leaf_only` is IH.
    static constexpr Descriptor iotlb_pages(std::uint16_t domain, Iova address,
                                            unsigned address_mask, bool leaf_only = false) {
        return {.low = kIotlb | kDeviceOrPages | did(domain),
                .high = address.value() | (leaf_only ? 1u << 6 : 0u) | address_mask};
    }
    static constexpr Descriptor interrupt_entries_global() { return {.low = kInterruptEntries}; }
    // 2^index_mask entries from `first` on.
    static constexpr Descriptor interrupt_entries(std::uint16_t first, unsigned index_mask) {
        return {.low = kInterruptEntries | 1u << 4 | std::uint64_t{index_mask} << 27 |
                       std::uint64_t{first} << 32};
    }
    // Writes `data` to `address`. With `fence`, later descriptors start after it.
    static constexpr Descriptor wait_status(Gpa address, std::uint32_t data, bool fence = false) {
        return {.low = kWait | 1u << 5 | (fence ? 1u << 6 : 0u) | std::uint64_t{data} << 32,
                .high = address.value()};
    }
    // Sends the completion interrupt.
    static constexpr Descriptor wait_interrupt() { return {.low = kWait | 1u << 4}; }

  private:
    // Type, bits 3:0.
    static constexpr std::uint64_t kContext = 0x1;
    static constexpr std::uint64_t kIotlb = 0x2;
    static constexpr std::uint64_t kInterruptEntries = 0x4;
    static constexpr std::uint64_t kWait = 0x5;
    // Granularity, bits 5:4.
    static constexpr std::uint64_t kGlobal = 1u << 4;
    static constexpr std::uint64_t kDomain = 2u << 4;
    static constexpr std::uint64_t kDeviceOrPages = 3u << 4;

    static constexpr std::uint64_t did(std::uint16_t domain) { return std::uint64_t{domain} << 16; }
};

}  // namespace umbra::driver
