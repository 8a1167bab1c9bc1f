// SPDX-License-Identifier: GPL-2.0-or-later
//
// Mappings of many pages that the guest unmaps by pieces.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "tests/unit/shadow/one_device.h"

namespace umbra::testing {
namespace {

constexpr unsigned kOrder = 14;
constexpr unsigned kPages = 1U << kOrder;
// What is cut at a time beside what halves and halves again.
constexpr std::uint64_t kSmallest = std::uint64_t{64} << 10;

class Split : public OneDevice {
  protected:
    Split() {
        tables_.map_pages(Iova(0), kRam, kPages);
        invalidate(Iova(0), kOrder);
    }
    // Unmaps the pages one by one. Returns the bytes that were mapped again.
    std::uint64_t unmap_all(const std::vector<unsigned>& order) {
        EXPECT_EQ(device_.recorder.mappings().size(), 1U);
        const std::uint64_t before = machine_.manager.counters().host.map.bytes;
        for (const unsigned page : order) {
            tables_.unmap(Iova(page * kPageSize));
            invalidate(Iova(page * kPageSize));
            most_ = std::max(most_, device_.recorder.mappings().size());
        }
        EXPECT_EQ(device_.recorder.mappings().size(), 0U);
        EXPECT_EQ(device_.recorder.violations(), 0U);
        EXPECT_EQ(machine_.manager.counters().host.live_mappings, 0U);
        EXPECT_EQ(machine_.manager.counters().host.pinned_bytes, 0U);
        return machine_.manager.counters().host.map.bytes - before;
    }
    static constexpr std::uint64_t kBytes = kPages * kPageSize;
    std::size_t most_ = 0;
};

TEST_F(Split, PageByPageUpwardsIsMappedAgainLogNTimes) {
    std::vector<unsigned> order(kPages);
    std::iota(order.begin(), order.end(), 0U);
    EXPECT_LE(unmap_all(order), kOrder * kBytes + kPages * kSmallest);
    EXPECT_LE(most_, kOrder + 2U);
}

TEST_F(Split, PageByPageDownwardsIsMappedAgainLogNTimes) {
    std::vector<unsigned> order(kPages);
    std::iota(order.rbegin(), order.rend(), 0U);
    EXPECT_LE(unmap_all(order), kOrder * kBytes + kPages * kSmallest);
    EXPECT_LE(most_, kOrder + 2U);
}

TEST_F(Split, PageByPageInAnyOrder) {
    std::vector<unsigned> order(kPages);
    std::iota(order.begin(), order.end(), 0U);
    std::shuffle(order.begin(), order.end(), std::mt19937(7));
    EXPECT_LE(unmap_all(order), kOrder * kBytes + kPages * kSmallest);
}

// Only what shares a mapping with the page is away for a moment, once the first cut is made.
TEST_F(Split, LaterCutsTakeLittleAlong) {
    tables_.unmap(Iova(0));
    invalidate(Iova(0));
    std::uint64_t away = 0;
    device_.recorder.on_unmapped = [&](const shadow::HostMapping& mapping) {
        away += mapping.bytes;
    };
    tables_.unmap(Iova(kPageSize));
    invalidate(Iova(kPageSize));
    EXPECT_LE(away, kSmallest);
    device_.recorder.on_unmapped = nullptr;
    EXPECT_TRUE(machine_.manager.verify().clean());
    // All that is left goes in one call.
    const std::uint64_t calls = device_.recorder.unmap_calls();
    tables_.unmap_pages(Iova(0), kPages);
    invalidate(Iova(0), kOrder);
    EXPECT_EQ(device_.recorder.mappings().size(), 0U);
    EXPECT_LE(device_.recorder.unmap_calls() - calls, kPages / 512U);
}

}  // namespace
}  // namespace umbra::testing
