// SPDX-License-Identifier: GPL-2.0-or-later
//
// The probes that listen to a measured vIOMMU, and what they were told.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/qtest/probe_driver.h"

namespace umbra::bench {

// Notifications since the last clear_traffic(), all devices together.
struct Traffic {
    std::uint64_t calls = 0;     // maps and unmaps
    std::uint64_t mapped = 0;    // bytes
    std::uint64_t unmapped = 0;  // bytes
};

class Listeners {
  public:
    void add(const qtest::ProbeDriver& probe) { probes_.push_back(probe); }
    [[nodiscard]] qtest::ProbeDriver& front() { return probes_.front(); }

    [[nodiscard]] Traffic traffic();
    void clear_traffic();

  private:
    std::vector<qtest::ProbeDriver> probes_;
};

// What an operation should have told each of `devices` listeners, in bytes. An unmap may span
// holes, which count as unmapped bytes too: up to `holes` of them.
struct Expected {
    std::uint64_t mapped = 0;
    std::uint64_t unmapped = 0;
    unsigned devices = 1;
    std::uint64_t holes = 0;
};
// Throws std::runtime_error, which names the operation, unless `actual` is that.
void check(const char* operation, const Traffic& actual, const Expected& expected);

}  // namespace umbra::bench
