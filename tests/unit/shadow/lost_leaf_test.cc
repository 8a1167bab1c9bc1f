// SPDX-License-Identifier: GPL-2.0-or-later
//
// Leaves that were mapped and have to be mapped again.
#include <gtest/gtest.h>

#include <cerrno>
#include <vector>

#include "tests/unit/shadow/retries.h"

namespace umbra::testing {
namespace {

using shadow::Trouble;

TEST_F(Retries, RestOfASplitThatFailedIsTriedByEverySync) {
    for (const Iova touched : {page(3), page(100'000)}) {
        tables_.map_pages(page(0), kRam, 8);
        invalidate(page(0), 3);
        ASSERT_EQ(first_.recorder.mappings().size(), 1U);
        first_.recorder.entry_limit = 1;
        tables_.unmap(page(3));
        invalidate(page(3));
        expect_mapped(first_, 0, 3);
        EXPECT_EQ(mapped(first_.recorder, page(4)), kNothing);
        EXPECT_EQ(host().missing_leaves, 4U);
        const std::uint64_t failures = host().map.failures;
        invalidate(touched);
        EXPECT_EQ(host().map.failures, failures + 1) << "in vain";

        first_.recorder.entry_limit = 100;
        invalidate(touched);
        expect_mapped(first_, 0, 3);
        expect_mapped(first_, 4, 8);
        EXPECT_EQ(mapped(first_.recorder, page(3)), kNothing);
        EXPECT_EQ(host().missing_leaves, 0U);
        tables_.unmap_pages(page(0), 8);
        invalidate(page(0), 3);
    }
    EXPECT_EQ(first_.recorder.violations(), 0U);
}

TEST_F(Retries, WhatAStuckUnmapTakesAlongComesBack) {
    for (const Iova touched : {page(3), page(100'000)}) {
        tables_.map_pages(page(0), kRam, 8);
        invalidate(page(0), 3);
        bool refuse = true;
        first_.recorder.fail = [&](bool is_map, Iova, std::uint64_t) {
            return !is_map && refuse ? EBUSY : 0;
        };
        tables_.unmap(page(3));
        invalidate(page(3));
        expect_mapped(first_, 0, 8);
        EXPECT_EQ(host().pinned_bytes, 8 * kPageSize);

        refuse = false;
        invalidate(touched);
        expect_mapped(first_, 0, 3);
        expect_mapped(first_, 4, 8);
        EXPECT_EQ(mapped(first_.recorder, page(3)), kNothing);
        EXPECT_EQ(host().missing_leaves, 0U);
        EXPECT_EQ(host().live_mappings, 2U);
        EXPECT_EQ(host().pinned_bytes, 7 * kPageSize);
        EXPECT_EQ(host().map.bytes - host().unmap.bytes, host().pinned_bytes);
        EXPECT_TRUE(machine_.manager.verify().clean());
        tables_.unmap_pages(page(0), 8);
        invalidate(page(0), 3);
    }
}

// What was still mapped with it is not away for longer than it must be.
TEST_F(Retries, WhatAStuckUnmapTakesAlongIsMappedAgainAtOnce) {
    tables_.map_pages(page(0), kRam, 8);
    for (unsigned number = 0; number < 100; ++number) {
        tables_.map(Iova(0x4000'0000) + number * (2 * kPageSize), kRam);
    }
    invalidate_pages_of_all();
    bool refuse = true;
    std::vector<Iova> mapped_since;
    first_.recorder.fail = [&](bool is_map, Iova iova, std::uint64_t) {
        if (is_map) {
            mapped_since.push_back(iova);
        }
        return !is_map && refuse ? EBUSY : 0;
    };
    tables_.unmap(page(3));
    invalidate(page(3));
    refuse = false;
    mapped_since.clear();
    tables_.map(Iova(0x10'0000), kRam);
    invalidate_domain();
    EXPECT_EQ(mapped_since, (std::vector{page(0), page(4), Iova(0x10'0000)}));
}

// The unmap is in trouble, not what is still mapped with it.
TEST_F(RetriesWithStop, RefusedUnmapOfASplitIsNoFailedMap) {
    tables_.map_pages(page(0), kRam, 8);
    invalidate(page(0), 3);
    first_.recorder.fail = [](bool is_map, Iova, std::uint64_t) { return is_map ? 0 : EBUSY; };
    tables_.unmap(page(3));
    invalidate(page(3));
    invalidate(page(0), 3);
    EXPECT_EQ(machine_.events.count(Trouble::unmap_refused), 1U);
    EXPECT_EQ(machine_.events.count(Trouble::map_failed), 0U);
    EXPECT_EQ(machine_.events.stops, 0U);
    // Something else in its place is.
    tables_.map(page(3), kRam);
    invalidate(page(3));
    EXPECT_EQ(machine_.events.stops, 1U);
}

TEST_F(Retries, RestThatTheGuestUnmapsIsNotTriedAnyMore) {
    tables_.map_pages(page(0), kRam, 8);
    invalidate(page(0), 3);
    first_.recorder.entry_limit = 1;
    tables_.unmap(page(3));
    invalidate(page(3));
    tables_.unmap_pages(page(4), 4);
    invalidate(page(4), 2);
    EXPECT_EQ(host().missing_leaves, 0U);
    const std::uint64_t calls = first_.recorder.map_calls();
    invalidate(page(3));
    EXPECT_EQ(first_.recorder.map_calls(), calls);
    EXPECT_EQ(host().pinned_bytes, 3 * kPageSize);
}

// Many that fail cost each sync a few calls, and do not keep others from their turn.
TEST_F(Retries, RestsThatFailAreTriedAFewAtATime) {
    constexpr unsigned kSplits = 60;
    constexpr std::uint64_t kApart = 0x10'0000;
    for (unsigned i = 0; i < kSplits; ++i) {
        tables_.map_pages(Iova(i * kApart), kRam, 3);
    }
    invalidate_pages_of_all();
    first_.recorder.fail = [](bool is_map, Iova iova, std::uint64_t) {
        return is_map && iova.offset_in(kApart) != 0 ? EINVAL : 0;
    };
    for (unsigned i = 0; i < kSplits; ++i) {
        tables_.unmap(Iova(i * kApart + kPageSize));
    }
    invalidate_domain();
    EXPECT_EQ(host().missing_leaves, kSplits);
    first_.recorder.fail = [](bool is_map, Iova iova, std::uint64_t) {
        return is_map && iova < Iova(40 * kApart) ? EINVAL : 0;
    };
    for (unsigned pass = 0; pass < 6; ++pass) {
        const std::uint64_t failures = host().map.failures;
        invalidate(Iova(0x4000'0000));
        EXPECT_LE(host().map.failures - failures, 2 * 16U) << "at most that many in a row";
    }
    EXPECT_EQ(host().missing_leaves, 40U);
    EXPECT_EQ(mapped(first_.recorder, Iova((kSplits - 1) * kApart + 2 * kPageSize)),
              at(2 * kPageSize));
}

TEST_F(Retries, WhatRamThatMovesHadMappedIsTriedByEverySync) {
    tables_.map_pages(page(0), kRam, 8);
    tables_.map(Iova(0x40'0000), kRam);
    invalidate_pages_of_all();
    first_.recorder.entry_limit = 1;
    machine_.ram.set({{kRam, FakeMachine::kRamBytes, kHost + 0x20'0000, false}});
    invalidate(Iova(0x4000'0000));
    EXPECT_EQ(host().missing_leaves, 1U);
    first_.recorder.entry_limit = 100;
    invalidate(Iova(0x4000'0000));
    EXPECT_EQ(mapped(first_.recorder, Iova(0x40'0000)), at(0x20'0000));
    EXPECT_EQ(host().missing_leaves, 0U);
}

}  // namespace
}  // namespace umbra::testing
