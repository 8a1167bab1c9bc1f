// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/bench/device/cases.h"

#include <fnmatch.h>

#include <algorithm>
#include <vector>

namespace umbra::bench {

namespace {

using driver::Leaf;

Case map_case(const char* name, std::size_t count, bool many_devices) {
    return {name, 3, many_devices, false,
            [count](Subject& s, unsigned n) { return s.map_pages(count, n); }};
}

Case unmap_case(const char* name, std::size_t count, bool many_devices) {
    return {name, 3, many_devices, false,
            [count](Subject& s, unsigned n) { return s.unmap_pages(count, n); }};
}

Case large_case(const char* name, Leaf leaf, bool map) {
    return {name, 3, false, false, [leaf, map](Subject& s, unsigned n) {
                return map ? s.map_large(leaf, n) : s.unmap_large(leaf, n);
            }};
}

std::vector<Case> make_cases() {
    return {
        {"dsi-unchanged", 5, true, true,
         [](Subject& s, unsigned n) { return s.domain_unchanged(n); }},
        {"gi-unchanged", 5, true, true,
         [](Subject& s, unsigned n) { return s.global_unchanged(n); }},
        {"unmap-256-dsi", 3, true, true,
         [](Subject& s, unsigned n) { return s.unmap_scattered(n); }},
        {"map-all-dsi", 1, false, true, [](Subject& s, unsigned n) { return s.map_all(n); }},
        {"unmap-all-dsi", 1, false, true, [](Subject& s, unsigned n) { return s.unmap_all(n); }},
        map_case("map-1-psi", 1, true),
        {"map-1-psi-adjacent", 3, false, false,
         [](Subject& s, unsigned n) { return s.map_adjacent(n); }},
        unmap_case("unmap-1-psi", 1, true),
        {"map-1-psi-alone", 15, true, false, [](Subject& s, unsigned n) { return s.map_alone(n); }},
        {"unmap-1-psi-alone", 15, true, false,
         [](Subject& s, unsigned n) { return s.unmap_alone(n); }},
        map_case("map-8-psi", 8, false),
        unmap_case("unmap-8-psi", 8, false),
        map_case("map-512-psi", 512, false),
        unmap_case("unmap-512-psi", 512, false),
        large_case("map-2m-psi", Leaf::page_2m, true),
        large_case("unmap-2m-psi", Leaf::page_2m, false),
        large_case("map-1g-psi", Leaf::page_1g, true),
        large_case("unmap-1g-psi", Leaf::page_1g, false),
    };
}

}  // namespace

std::span<const Case> all_cases() {
    static const std::vector<Case> cases = make_cases();
    return cases;
}

bool matches(const std::vector<std::string>& patterns, const std::string& name) {
    return std::ranges::any_of(patterns, [&](const std::string& pattern) {
        return ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
    });
}

}  // namespace umbra::bench
