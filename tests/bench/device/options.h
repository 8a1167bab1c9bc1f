// SPDX-License-Identifier: GPL-2.0-or-later
//
// The command line of umbra_device_bench.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "tests/bench/device/subject.h"

namespace umbra::bench {

struct Options {
    std::vector<std::size_t> pages = {256, 4096, 65536, 524288, 1048576};
    std::vector<unsigned> devices;  // empty: the default choice
    std::vector<Layout> layouts;    // empty: the default choice
    std::vector<Sharing> sharings = {Sharing::one_domain, Sharing::own_domains};
    std::vector<qtest::Viommu> viommus = {qtest::Viommu::intel, qtest::Viommu::umbra};
    std::vector<std::string> cases = {"*"};
    unsigned turns = 15;
    std::chrono::milliseconds budget{4000};  // of one case, both vIOMMUs together
    std::string json;
    bool list = false;
    bool help = false;
};

// Nullopt, and a sentence in `problem`, for what cannot be understood.
[[nodiscard]] std::optional<Options> parse_options(const std::vector<std::string>& words,
                                                   std::string& problem);

// What --help prints.
[[nodiscard]] const char* help_text();

// The machines to measure, in order: with no choice of devices and layouts, the default one.
[[nodiscard]] std::vector<Configuration> configurations(const Options& options);

}  // namespace umbra::bench
