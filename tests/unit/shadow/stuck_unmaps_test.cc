// SPDX-License-Identifier: GPL-2.0-or-later
//
// The list of stretches whose unmap the host refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "plugin/shadow/stuck_unmaps.h"

namespace umbra::testing {
namespace {

using shadow::StuckUnmaps;
using Mappings = StuckUnmaps::Mappings;

constexpr IovaRange pages(unsigned first, unsigned end) {
    return {Iova(first * kPageSize), Iova(end * kPageSize - 1)};
}

// In order of IOVA.
std::vector<IovaRange> stretches(const StuckUnmaps& stuck) {
    std::vector<IovaRange> found;
    stuck.visit([&](IovaRange range) { found.push_back(range); });
    std::sort(found.begin(), found.end(),
              [](IovaRange a, IovaRange b) { return a.first < b.first; });
    return found;
}

TEST(StuckUnmaps, KnowsWhatLiesInThem) {
    StuckUnmaps stuck;
    EXPECT_TRUE(stuck.empty());
    stuck.add(pages(4, 8), {2, 4 * kPageSize});
    stuck.add(pages(10, 11), {1, kPageSize});
    EXPECT_FALSE(stuck.empty());
    EXPECT_EQ(stuck.mappings(), (Mappings{3, 5 * kPageSize}));
    EXPECT_TRUE(stuck.overlaps(pages(7, 9)));
    EXPECT_FALSE(stuck.overlaps(pages(8, 10)));
    stuck.clear();
    EXPECT_TRUE(stuck.empty());
    EXPECT_EQ(stuck.mappings(), (Mappings{}));
}

TEST(StuckUnmaps, CountMappingsUntilTheLastPageIsTakenOut) {
    StuckUnmaps stuck;
    stuck.add(pages(0, 10), {3, 10 * kPageSize});
    EXPECT_EQ(stuck.take_out(pages(4, 6)), (Mappings{}));
    EXPECT_EQ(stretches(stuck), (std::vector{pages(0, 4), pages(6, 10)}));
    EXPECT_EQ(stuck.take_out(pages(8, 12)), (Mappings{}));
    EXPECT_EQ(stuck.take_out(pages(6, 7)), (Mappings{}));
    EXPECT_EQ(stretches(stuck), (std::vector{pages(0, 4), pages(7, 8)}));
    EXPECT_EQ(stuck.take_out(pages(0, 4)), (Mappings{3, 10 * kPageSize}));
    EXPECT_EQ(stuck.take_out(pages(4, 20)), (Mappings{}));
    EXPECT_TRUE(stuck.empty());
}

TEST(StuckUnmaps, AreTriedOnceEachThoughOthersGoMeanwhile) {
    StuckUnmaps stuck;
    stuck.add(pages(0, 2), {1, 2 * kPageSize});
    stuck.add(pages(1, 5), {1, 4 * kPageSize});
    stuck.add(pages(8, 9), {1, kPageSize});
    stuck.add(pages(20, 21), {1, kPageSize});
    std::vector<IovaRange> tried;
    const bool any = stuck.retry(pages(0, 10), 16, [&](IovaRange range) {
        tried.push_back(range);
        if (range.first != Iova(0)) {
            return false;
        }
        (void)stuck.take_out(range);
        return true;
    });
    EXPECT_TRUE(any);
    EXPECT_EQ(tried.size(), 3U);
    EXPECT_EQ(stretches(stuck), (std::vector{pages(2, 5), pages(8, 9), pages(20, 21)}));
}

TEST(StuckUnmaps, AreNotTriedAnyMoreAfterManyFailures) {
    StuckUnmaps stuck;
    for (unsigned i = 0; i < 10; ++i) {
        stuck.add(pages(2 * i, 2 * i + 1), {1, kPageSize});
    }
    unsigned tries = 0;
    EXPECT_FALSE(stuck.retry(IovaRange::everything(), 4, [&](IovaRange) {
        ++tries;
        return false;
    }));
    EXPECT_EQ(tries, 4U);
}

}  // namespace
}  // namespace umbra::testing
