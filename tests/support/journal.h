// SPDX-License-Identifier: GPL-2.0-or-later
//
// The events that the fakes of one test saw, in order, one line an event. Memory, message sink and
// observer share a journal, so that a test sees the order of events across them.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace umbra::testing {

using Journal = std::vector<std::string>;

inline std::string hex(std::uint64_t value) {
    char text[19];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

}  // namespace umbra::testing
