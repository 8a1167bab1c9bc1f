// SPDX-License-Identifier: GPL-2.0-or-later
//
// A counter that several threads share: one relaxed atomic word. Counting takes no lock, and a
// reader sees each counter at some recent moment, not all of them at the same one. The structs of
// such counters are made from umbra.proto (counter_types.h, namespace atomic).
//
// Threading: every function may be called from any thread.
#pragma once

#include <atomic>
#include <cstdint>

namespace umbra::telemetry {

class Counter {
  public:
    void add(std::uint64_t amount = 1) { value_.fetch_add(amount, std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }
    void clear() { value_.store(0, std::memory_order_relaxed); }

  private:
    std::atomic<std::uint64_t> value_{0};
};

}  // namespace umbra::telemetry
