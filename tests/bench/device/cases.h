// SPDX-License-Identifier: GPL-2.0-or-later
//
// What is measured on each machine, by name.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "tests/bench/device/subject.h"

namespace umbra::bench {

struct Case {
    const char* name;
    // Repetitions within one turn. The first of several in a row finds colder caches than the rest.
    unsigned in_a_row;
    bool many_devices;  // measured with more than one device too
    bool tables;        // has a memcmp of the leaf tables as its yardstick
    std::function<Measurement(Subject&, unsigned)> run;
};

[[nodiscard]] std::span<const Case> all_cases();

// Whether one of the shell patterns fits the name.
[[nodiscard]] bool matches(const std::vector<std::string>& patterns, const std::string& name);

}  // namespace umbra::bench
