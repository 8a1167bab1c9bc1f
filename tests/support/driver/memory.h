// SPDX-License-Identifier: GPL-2.0-or-later
//
// Guest memory as guest software reads and writes it. A test's fake of guest RAM, and the RAM of a
// real QEMU, are each one.
#pragma once

#include <cstdint>

#include "plugin/vtd/types.h"

namespace umbra::driver {

class Memory {
  public:
    virtual ~Memory() = default;
    // `address` is a multiple of 8 and inside the memory.
    [[nodiscard]] virtual std::uint64_t load64(Gpa address) const = 0;
    virtual void store64(Gpa address, std::uint64_t value) = 0;
};

}  // namespace umbra::driver
