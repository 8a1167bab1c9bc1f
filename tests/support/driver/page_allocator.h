// SPDX-License-Identifier: GPL-2.0-or-later
//
// Pages of guest memory for a driver's tables and queues.
#pragma once

#include <cstddef>
#include <cstdint>

#include "plugin/vtd/types.h"
#include "tests/support/driver/memory.h"

namespace umbra::driver {

// Hands out zeroed guest pages, ascending from `first` to `last`, and never takes them back.
class PageAllocator {
  public:
    // `memory` outlives the allocator. `first` is the first byte, `last` the last one.
    PageAllocator(Memory& memory, Gpa first, Gpa last)
        : memory_(memory), next_(first), last_(last) {}

    // `pages` in one piece, aligned to `alignment` bytes. Throws std::length_error when exhausted.
    [[nodiscard]] Gpa allocate(std::size_t pages = 1, std::uint64_t alignment = kPageSize);

  private:
    Memory& memory_;
    Gpa next_;
    Gpa last_;
};

}  // namespace umbra::driver
