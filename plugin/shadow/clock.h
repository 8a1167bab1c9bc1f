// SPDX-License-Identifier: GPL-2.0-or-later
//
// Time for latency measurements and for bounding slices of work. A port, so that tests decide what
// time it is.
#pragma once

#include <cstdint>

namespace umbra::shadow {

class Clock {
  public:
    virtual ~Clock() = default;
    // Nanoseconds since some moment; never goes back. Cheap enough for several calls a sync.
    [[nodiscard]] virtual std::uint64_t now_ns() const = 0;

  protected:
    Clock() = default;
    Clock(const Clock&) = default;
    Clock& operator=(const Clock&) = default;
};

// CLOCK_MONOTONIC.
class SteadyClock final : public Clock {
  public:
    [[nodiscard]] std::uint64_t now_ns() const override;
};

}  // namespace umbra::shadow
