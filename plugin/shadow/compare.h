// SPDX-License-Identifier: GPL-2.0-or-later
//
// Comparison of a guest's table page with its copy, with the widest vectors that the CPU has.
//
// The guest may write while a comparison runs, so an answer is a hint: "equal" means that each
// entry had the copy's value at some moment of the call, "differs" asks the caller to read the
// entries of that line once more, each exactly once, and to go by what it then read.
#pragma once

#include <cstdint>

namespace umbra::shadow {

inline constexpr unsigned kEntriesPerLine = 8;  // 64 bytes
inline constexpr unsigned kLinesPerTable = 64;

// Functions on whole table pages: 512 entries, 8-byte-aligned (guest) and 64-byte-aligned (copy).
struct CompareFunctions {
    // Bit i is set if line i differs.
    std::uint64_t (*differing_lines)(const std::uint64_t* guest, const std::uint64_t* copy);
    // True if any entry has a permission bit (R or W) set, that is, is present.
    bool (*any_present)(const std::uint64_t* guest);
    const char* name;
};

// The best that this CPU can do. Chosen once, at the first call.
[[nodiscard]] const CompareFunctions& compare_functions();

// One by one, for tests and benchmarks: plain, sse2, avx2, avx512. nullptr if there is none of that
// name or this CPU cannot run it.
[[nodiscard]] const CompareFunctions* compare_functions(const char* name);

}  // namespace umbra::shadow
