// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the fakes of one test saw, in the order in which it happened, one line an event. Sharing a
// journal between memory, message sink and observer makes order across them visible.
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
