// SPDX-License-Identifier: GPL-2.0-or-later
//
// Runs of joined leaves that the host refuses, or that have to come apart.
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/unit/shadow/retries.h"

namespace umbra::testing {
namespace {

TEST_F(Retries, RunThatFailsIsOneFailure) {
    tables_.map_pages(page(0), kRam, 64);
    tables_.map(Iova(0x40'0000), kRam);
    invalidate_pages_of_all();
    second_.recorder.fail = [](bool is_map, Iova iova, std::uint64_t) {
        return is_map && iova < Iova(0x20'0000) ? EINVAL : 0;
    };
    machine_.manager.add_device(second_);
    EXPECT_EQ(mapped(second_.recorder, Iova(0x40'0000)), at(0));
    EXPECT_EQ(host().map.failures, 1U);
    EXPECT_EQ(host().missing_leaves, 64U);

    // One page of it stands for all.
    second_.recorder.fail = nullptr;
    invalidate(page(40));
    expect_mapped(second_, 0, 64);
    EXPECT_EQ(second_.recorder.mappings().size(), 2U);
    EXPECT_EQ(host().missing_leaves, 0U);
}

TEST_F(Retries, RunAcrossTablesThatFailsIsOneFailure) {
    // From the middle of one table to the middle of the next but one.
    tables_.map_pages(page(500), kRam + 500 * kPageSize, 600);
    tables_.map(Iova(0x4000'0000), kRam);
    invalidate_pages_of_all();
    ASSERT_EQ(first_.recorder.mappings().size(), 2U);
    second_.recorder.fail = [](bool is_map, Iova iova, std::uint64_t) {
        return is_map && iova < Iova(0x4000'0000) ? EINVAL : 0;
    };
    machine_.manager.add_device(second_);
    EXPECT_EQ(host().map.failures, 1U);
    EXPECT_EQ(mapped(second_.recorder, Iova(0x4000'0000)), at(0));
    // By any part of it, once for each sync.
    invalidate(page(512), 9);
    EXPECT_EQ(host().map.failures, 2U);
    invalidate(page(1024), 9);
    EXPECT_EQ(host().map.failures, 3U);
    invalidate(page(0), 0);
    EXPECT_EQ(host().map.failures, 3U) << "not a part of it";
    second_.recorder.fail = nullptr;
    invalidate(page(1099));
    expect_mapped(second_, 500, 1100);
    EXPECT_EQ(host().missing_leaves, 0U);
}

// Leaves of several levels in one run, and a range that starts inside a large one.
TEST_F(Retries, RunOfLargeAndSmallLeavesIsFoundByAnyPartOfIt) {
    const std::uint64_t large = vtd::level_span(2);
    tables_.map_pages(page(511), kRam + 511 * kPageSize, 1);
    tables_.map(Iova(large), kRam + large, Access::read_write, 2);
    tables_.map_pages(page(1024), kRam + 2 * large, 2);
    invalidate_pages_of_all();
    ASSERT_EQ(first_.recorder.mappings().size(), 1U);
    for (const Iova iova : {page(511), page(512), page(700), page(1023), page(1025)}) {
        second_.recorder.fail = [](bool is_map, Iova, std::uint64_t) {
            return is_map ? EINVAL : 0;
        };
        machine_.manager.add_device(second_);
        const std::uint64_t failures = host().map.failures;
        invalidate(iova);
        EXPECT_EQ(host().map.failures, failures + 1);
        second_.recorder.fail = nullptr;
        invalidate(iova);
        expect_mapped(second_, 511, 1026);
        EXPECT_EQ(host().missing_leaves, 0U);
        machine_.manager.remove_device(second_);
    }
}

// A pass ends after several failures in a row, and the next one goes on from there.
TEST_F(RetriesOfLeaves, LeavesThatFailDoNotKeepOthersOfTheirTableFromBeingTried) {
    tables_.map_pages(page(0), kRam, 100);
    invalidate_domain();
    second_.recorder.fail = [](bool is_map, Iova iova, std::uint64_t) {
        return is_map && iova < page(50) ? EINVAL : 0;
    };
    machine_.manager.add_device(second_);
    for (unsigned pass = 0; pass < 10; ++pass) {
        invalidate_domain();
    }
    expect_mapped(second_, 50, 100);
    EXPECT_EQ(host().missing_leaves, 50U);
}

TEST_F(Retries, RunAcrossANewBorderOfRamIsMappedAnew) {
    tables_.map_pages(page(0), kRam, 8, Access::read);
    invalidate_pages_of_all();
    ASSERT_EQ(first_.recorder.mappings().size(), 1U);
    // Nothing lies elsewhere now, nor can it be reached in another way.
    const std::uint64_t rest = FakeMachine::kRamBytes - 4 * kPageSize;
    machine_.ram.set({{kRam, 4 * kPageSize, kHost, false},
                      {kRam + 4 * kPageSize, rest, kHost + 4 * kPageSize, true}});
    machine_.manager.add_device(second_);
    for (const FakeDevice* device : {&first_, &second_}) {
        expect_mapped(*device, 0, 8, Access::read);
        EXPECT_EQ(device->recorder.mappings().size(), 2U);
    }
    EXPECT_EQ(host().missing_leaves, 0U);
    EXPECT_EQ(host().live_mappings, 4U);
    EXPECT_EQ(host().pinned_bytes, 16 * kPageSize);
    EXPECT_TRUE(machine_.manager.verify().clean());
    EXPECT_EQ(machine_.manager.counters().sync.resizes, 1U) << "what stays was away for a moment";

    // What a split leaves lies in one run of RAM.
    tables_.unmap(page(1));
    invalidate(page(1));
    EXPECT_EQ(host().splits, 2U);
    expect_mapped(second_, 2, 8, Access::read);
    EXPECT_EQ(mapped(second_.recorder, page(1)), kNothing);
    EXPECT_EQ(first_.recorder.violations() + second_.recorder.violations(), 0U);
}

TEST_F(Retries, SplitOfARunAcrossANewBorderOfRam) {
    tables_.map_pages(page(0), kRam, 8, Access::read);
    invalidate_pages_of_all();
    const std::uint64_t rest = FakeMachine::kRamBytes - 4 * kPageSize;
    machine_.ram.set({{kRam, 4 * kPageSize, kHost, false},
                      {kRam + 4 * kPageSize, rest, kHost + 4 * kPageSize, true}});
    tables_.unmap(page(1));
    invalidate(page(1));
    EXPECT_EQ(mapped(first_.recorder, page(1)), kNothing);
    expect_mapped(first_, 2, 8, Access::read);
    EXPECT_EQ(first_.recorder.violations(), 0U);
    EXPECT_EQ(host().map.failures, 0U);
    EXPECT_EQ(host().pinned_bytes, 7 * kPageSize);
    EXPECT_TRUE(machine_.manager.verify().clean());
}

}  // namespace
}  // namespace umbra::testing
