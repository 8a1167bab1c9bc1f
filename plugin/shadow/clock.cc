// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/clock.h"

#include <ctime>

#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>
#endif

namespace umbra::shadow {
namespace {

constexpr unsigned kFractionBits = 32;

std::uint64_t monotonic_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(now.tv_nsec);
}

#if defined(__x86_64__)

// CPUID 8000_0007h, EDX bit 8.
bool has_invariant_counter() {
    constexpr unsigned kPowerLeaf = 0x8000'0007;
    constexpr unsigned kInvariant = 1U << 8;
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    return __get_cpuid(kPowerLeaf, &eax, &ebx, &ecx, &edx) != 0 && (edx & kInvariant) != 0;
}

std::uint64_t ticks() {
    return __rdtsc();
}

#else

bool has_invariant_counter() {
    return false;
}

std::uint64_t ticks() {
    return 0;
}

#endif

}  // namespace

SteadyClock::SteadyClock() {
    if (!has_invariant_counter()) {
        return;
    }
    constexpr std::uint64_t kMeasureNs = 200'000;
    const std::uint64_t begin_ns = monotonic_ns();
    const std::uint64_t begin = ticks();
    std::uint64_t end_ns = begin_ns;
    while (end_ns - begin_ns < kMeasureNs) {
        end_ns = monotonic_ns();
    }
    const std::uint64_t elapsed = ticks() - begin;
    if (elapsed != 0) {
        start_ = begin;
        rate_ = ((end_ns - begin_ns) << kFractionBits) / elapsed;
    }
}

std::uint64_t SteadyClock::now_ns() const {
    if (rate_ == 0) {
        return monotonic_ns();
    }
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>(static_cast<Wide>(ticks() - start_) * rate_ >> kFractionBits);
}

}  // namespace umbra::shadow
