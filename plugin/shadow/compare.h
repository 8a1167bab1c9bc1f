// SPDX-License-Identifier: GPL-2.0-or-later
//
// Compares a guest's table page with its copy, with the widest vectors that the CPU has.
//
// The guest can write to the page while a comparison runs. So "equal" means that each entry had the
// copy's value at some moment of the call. "Differs" is a hint: the caller then reads each entry of
// the line exactly once, and goes by the value that it read.
//
// Threading: any thread.
#pragma once

#include <cstdint>

namespace umbra::shadow {

inline constexpr unsigned kEntriesPerLine = 8;  // 64 bytes
inline constexpr unsigned kLinesPerTable = 64;

// Functions on whole table pages of 512 entries. `guest` is aligned to 8 bytes, `copy` to 64.
struct CompareFunctions {
    // Bit i is set if line i differs.
    std::uint64_t (*differing_lines)(const std::uint64_t* guest, const std::uint64_t* copy);
    // True if any entry is present, that is, has a permission bit (R or W) set.
    bool (*any_present)(const std::uint64_t* guest);
    const char* name;
};

// The functions for the widest vectors of this CPU. The first call chooses them.
[[nodiscard]] const CompareFunctions& compare_functions();

// The functions of one name, for tests and benchmarks: plain, sse2, avx2 or avx512. nullptr for
// another name, and if this CPU cannot run them.
[[nodiscard]] const CompareFunctions* compare_functions(const char* name);

}  // namespace umbra::shadow
