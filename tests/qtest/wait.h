// SPDX-License-Identifier: GPL-2.0-or-later
//
// Waiting for what QEMU does at a moment of its own choice.
#pragma once

#include <chrono>
#include <thread>

namespace umbra::qtest {

// Asks until `condition()` is true. False if it is not within `limit`, which is far from what a
// slow machine needs.
template <class Condition>
[[nodiscard]] bool comes_true(Condition&& condition,
                              std::chrono::seconds limit = std::chrono::seconds(60)) {
    const auto deadline = std::chrono::steady_clock::now() + limit;
    while (!condition()) {
        if (std::chrono::steady_clock::now() >= deadline) {
            return false;
        }
        std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    return true;
}

}  // namespace umbra::qtest
