// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/entry_read.h"

#include <atomic>

namespace umbra::vtd {

std::optional<spec::Quads> read_entry(const GuestMemory& memory, Gpa address) {
    constexpr int kAttempts = 4;

    std::optional<std::uint64_t> low = memory.read_u64(address);
    std::optional<std::uint64_t> high;
    for (int attempt = 0; attempt < kAttempts && low.has_value(); ++attempt) {
        std::atomic_thread_fence(std::memory_order_acquire);
        high = memory.read_u64(address + sizeof(std::uint64_t));
        std::atomic_thread_fence(std::memory_order_acquire);
        const std::optional<std::uint64_t> again = memory.read_u64(address);
        if (again == low) {
            break;
        }
        low = again;
    }
    if (!low.has_value() || !high.has_value()) {
        return std::nullopt;
    }
    return spec::Quads{*low, *high};
}

}  // namespace umbra::vtd
