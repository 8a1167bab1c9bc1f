// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/clock.h"

#include <ctime>

namespace umbra::shadow {

std::uint64_t SteadyClock::now_ns() const {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace umbra::shadow
