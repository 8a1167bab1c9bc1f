// SPDX-License-Identifier: GPL-2.0-or-later
//
// Unmaps that the host refuses.
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/unit/shadow/retries.h"

namespace umbra::testing {
namespace {

// Each stretch has its turn, also if others go or come apart together with one.
TEST_F(Retries, StuckStretchesThatOverlapDoNotKeepOthersFromTheirTurn) {
    tables_.map_pages(page(4), kRam, 4);
    tables_.map(page(100), kRam);
    invalidate_pages_of_all();
    bool refuse = true;
    first_.recorder.fail = [&](bool is_map, Iova, std::uint64_t) {
        return !is_map && refuse ? EBUSY : 0;
    };
    tables_.unmap_pages(page(4), 4);
    invalidate(page(4), 2);
    tables_.unmap(page(100));
    invalidate(page(100));
    // Those pages again, in the middle of more that cannot be mapped over them.
    tables_.map_pages(page(0), kRam, 12);
    invalidate(page(0), 4);
    tables_.unmap_pages(page(0), 12);
    invalidate(page(0), 4);
    EXPECT_EQ(first_.recorder.mappings().size(), 2U);

    refuse = false;
    invalidate_domain();
    EXPECT_EQ(first_.recorder.mappings().size(), 0U);
    EXPECT_EQ(host().live_mappings, 0U);
    EXPECT_EQ(host().pinned_bytes, 0U);
    EXPECT_TRUE(machine_.manager.verify().clean());
}

}  // namespace
}  // namespace umbra::testing
