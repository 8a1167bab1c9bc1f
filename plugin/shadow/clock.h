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

// The CPU's time-stamp counter, where it counts at one rate on all CPUs and does not stop; else
// CLOCK_MONOTONIC, which takes about three times as long to read.
class SteadyClock final : public Clock {
  public:
    // Measures the rate of the counter, for a fifth of a millisecond.
    SteadyClock();
    [[nodiscard]] std::uint64_t now_ns() const override;

  private:
    std::uint64_t start_ = 0;
    // Nanoseconds a tick, as a fraction of 2^32. 0: the counter is not to be used.
    std::uint64_t rate_ = 0;
};

}  // namespace umbra::shadow
