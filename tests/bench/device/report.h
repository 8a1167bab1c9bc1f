// SPDX-License-Identifier: GPL-2.0-or-later
//
// The benchmark's results as a text table and as JSON.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "tests/bench/device/statistics.h"
#include "tests/bench/device/subject.h"

namespace umbra::bench {

// One vIOMMU's side of a result.
struct Side {
    std::string viommu;
    Summary time;      // ns for one operation
    double calls = 0;  // of all listeners, for one operation
    double floor = 0;  // ns of the above that are not the invalidation's, see struct Floor
    Memory memory;
};

struct Result {
    std::string name;  // of the case
    Configuration configuration;
    std::vector<Side> sides;  // the peer first
    // The peer's time by Umbra's, a sample for each turn; no samples if one was left out.
    Summary ratio;
    // memcmp of the mapped leaf tables in the same run, and Umbra's time by it, a sample for each
    // turn; no samples where they say nothing.
    Summary compare;
    Summary by_compare;
    // Umbra's time for several devices in one domain by its time for a domain with one of as many,
    // a sample for each turn; no samples otherwise.
    Summary by_one_device;
};

struct Report {
    std::string qemu_version;
    std::string processor;
    unsigned turns = 0;
    std::vector<Result> results;
};

[[nodiscard]] const char* to_string(Sharing sharing);
[[nodiscard]] const char* to_string(Layout layout);

void write_table_header(std::ostream& out, const Report& report);
void write_table_row(std::ostream& out, const Result& result);
void write_json(std::ostream& out, const Report& report);

}  // namespace umbra::bench
