// SPDX-License-Identifier: GPL-2.0-or-later
//
// Mappings beside the interrupt range.
#include <gtest/gtest.h>

#include <cerrno>

#include "plugin/vtd/interrupt_range.h"
#include "tests/unit/shadow/one_device.h"

namespace umbra::testing {
namespace {

// A host refuses what touches its own interrupt range. What lies beside it must not go with it.
TEST_F(OneDevice, NeighboursOfTheInterruptRangeAreMapped) {
    constexpr Iova kFirst{vtd::kInterruptRangeFirst};
    constexpr Iova kAfter{vtd::kInterruptRangeLast + 1};
    device_.recorder.fail = [&](bool is_map, Iova iova, std::uint64_t bytes) {
        return is_map && iova < kAfter && iova + bytes > kFirst ? EINVAL : 0;
    };
    const Iova start = kFirst - 16 * kPageSize;
    tables_.map_pages(start, kRam, 16 + 256 + 16);
    machine_.manager.iotlb_domain(kDomain);
    for (unsigned page = 0; page < 16 + 256 + 16; ++page) {
        const bool beside = page < 16 || page >= 16 + 256;
        ASSERT_EQ(mapped(device_.recorder, start + page * kPageSize).access,
                  beside ? Access::read_write : Access::none)
            << page;
    }
    device_.recorder.fail = nullptr;
}

}  // namespace
}  // namespace umbra::testing
