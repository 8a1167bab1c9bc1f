// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/support/driver/page_allocator.h"

#include <stdexcept>

namespace umbra::driver {

Gpa PageAllocator::allocate(std::size_t pages, std::uint64_t alignment) {
    const Gpa start = (next_ + (alignment - 1)).align_down(alignment);
    const Gpa end = start + pages * kPageSize;
    if (end - 1 > last_) {
        throw std::length_error("the test machine's RAM for tables is used up");
    }
    next_ = end;
    for (Gpa at = start; at < end; at = at + sizeof(std::uint64_t)) {
        memory_.store64(at, 0);
    }
    return start;
}

}  // namespace umbra::driver
