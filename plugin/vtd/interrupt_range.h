// SPDX-License-Identifier: GPL-2.0-or-later
//
// The addresses that are interrupts and not memory: 0xFEE0_0000 to 0xFEEF_FFFF (specification
// 3.14). A request of a device to one of them is never translated as DMA; it goes to interrupt
// remapping. A translation that ends there is blocked.
#pragma once

#include <cstdint>

#include "plugin/vtd/types.h"

namespace umbra::vtd {

inline constexpr std::uint64_t kInterruptRangeFirst = 0xfee00000;
inline constexpr std::uint64_t kInterruptRangeLast = 0xfeefffff;

template <class Tag>
[[nodiscard]] constexpr bool is_interrupt_address(Address<Tag> address) {
    return address.value() >= kInterruptRangeFirst && address.value() <= kInterruptRangeLast;
}

}  // namespace umbra::vtd
