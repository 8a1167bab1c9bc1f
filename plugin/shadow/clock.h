// SPDX-License-Identifier: GPL-2.0-or-later
//
// Time for latency measurements and for bounding slices of work. A port, so that tests decide what
// time it is.
#pragma once

#include <cstdint>
#include <utility>

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

// The end of a slice of work. Once it has come it stays so, without another look at the clock.
class Deadline {
  public:
    // `clock` outlives it.
    Deadline(const Clock& clock, std::uint64_t at_ns) : clock_(&clock), at_ns_(at_ns) {}

    // Looks at the clock.
    [[nodiscard]] bool is_over() {
        over_ = over_ || clock_->now_ns() >= at_ns_;
        return over_;
    }
    // As of the last look.
    [[nodiscard]] bool was_over() const { return over_; }
    // Whether another piece of work may begin. The first one of a slice may in any case, so that
    // each slice gets on.
    [[nodiscard]] bool allows_more() { return !std::exchange(begun_, true) || !is_over(); }
    // One that is done in any case has begun.
    void begin() { begun_ = true; }

  private:
    const Clock* clock_;
    std::uint64_t at_ns_;
    bool over_ = false;
    bool begun_ = false;
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
