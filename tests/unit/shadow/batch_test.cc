// SPDX-License-Identifier: GPL-2.0-or-later
//
// Invalidations that the guest hands over together.
#include <gtest/gtest.h>

#include "plugin/shadow/range_list.h"
#include "tests/unit/shadow/one_device.h"

namespace umbra::testing {
namespace {

using telemetry::SyncTrigger;

TEST_F(OneDevice, InvalidationsOfABatchAreOneSync) {
    tables_.map_pages(Iova(0), kRam, 8);
    tables_.map(Iova(0x10'0000), kRam);
    tables_.map(Iova(0x20'0000), kRam);
    machine_.manager.batch_begin();
    invalidate(Iova(0x10'0000));
    for (unsigned page = 0; page < 8; ++page) {
        invalidate(Iova(page * kPageSize));
    }
    invalidate(Iova(0x10'0000));
    EXPECT_EQ(calls(device_), 0U);
    machine_.manager.barrier();
    EXPECT_EQ(device_.recorder.map_calls(), 9U);
    EXPECT_EQ(syncs(machine_, SyncTrigger::page), 1U);
    EXPECT_EQ(machine_.manager.counters().sync.leaves, 9U) << "and concern nothing else";
    machine_.manager.batch_end();
}

TEST_F(OneDevice, UnmapsOfABatchSpanWhatIsNotMapped) {
    for (unsigned page = 0; page < 16; ++page) {
        tables_.map(Iova(std::uint64_t{2} * page * kPageSize), kRam);
    }
    machine_.manager.iotlb_domain(kDomain);
    machine_.manager.batch_begin();
    for (unsigned page = 0; page < 16; ++page) {
        // In no order that a table has them in.
        const Iova iova(std::uint64_t{2} * (page * 7 % 16) * kPageSize);
        if (page != 5) {
            tables_.unmap(iova);
        }
        invalidate(iova);
    }
    machine_.manager.barrier();
    machine_.manager.batch_end();
    EXPECT_EQ(device_.recorder.unmap_calls(), 2U) << "one on each side of the page that stays";
    EXPECT_EQ(device_.recorder.mappings().size(), 1U);
    EXPECT_EQ(device_.recorder.violations(), 0U);
}

TEST_F(OneDevice, VeryManyInvalidationsOfABatchAreOneLookAtEverything) {
    tables_.map(Iova(0x4000'0000), kRam);
    machine_.manager.batch_begin();
    for (unsigned page = 0; page < shadow::RangeList::kCapacity; ++page) {
        invalidate(Iova(std::uint64_t{2} * page * kPageSize));
    }
    machine_.manager.barrier();
    EXPECT_EQ(machine_.manager.counters().sync.leaves, 0U);
    for (unsigned page = 0; page < shadow::RangeList::kCapacity + 1; ++page) {
        invalidate(Iova(std::uint64_t{2} * page * kPageSize));
    }
    machine_.manager.barrier();
    machine_.manager.batch_end();
    EXPECT_EQ(machine_.manager.counters().sync.leaves, 1U);
    EXPECT_EQ(syncs(machine_, SyncTrigger::page), 2U);
}

// The size of the whole 64-bit space does not fit into 64 bits.
TEST(RangeList, KeepsPagesAsBlocksOfARangeOverEverything) {
    shadow::RangeList alone;
    alone.add(IovaRange::everything());
    EXPECT_TRUE(alone.everything());
    EXPECT_EQ(alone.block(0), kPageSize);

    shadow::RangeList ranges;
    ranges.add(IovaRange::pages(Iova(0), 3));
    ranges.add(IovaRange::everything());
    ranges.add(IovaRange::pages(Iova(0x10'0000), 1));
    ranges.normalise();
    EXPECT_TRUE(ranges.everything());
    EXPECT_EQ(ranges.block(0), kPageSize);
}

// A sync for a page can find that all of a table has changed, and what it then does to pages that
// are named later is not to be undone by what comes later of the same batch.
TEST_F(OneDevice, InvalidationsOfABatchThatConcernMoreThanTheyName) {
    tables_.map_pages(Iova(0), kRam, 64);
    machine_.manager.iotlb_domain(kDomain);
    std::uint64_t& table = tables_.entry(Iova(0), 2);
    table =
        GuestTables::table(Gpa(table & vtd::spec::SecondStageEntry::Address::kMask), Access::read);
    machine_.manager.batch_begin();
    invalidate(Iova(8 * kPageSize));
    tables_.unmap(Iova(3 * kPageSize));
    tables_.unmap(Iova(20 * kPageSize));
    invalidate(Iova(20 * kPageSize));
    invalidate(Iova(3 * kPageSize));
    machine_.manager.barrier();
    machine_.manager.batch_end();
    EXPECT_EQ(host_at(device_, Iova(3 * kPageSize)), HostAddress());
    EXPECT_EQ(host_at(device_, Iova(20 * kPageSize)), HostAddress());
    EXPECT_EQ(host_at(device_, Iova(21 * kPageSize)), kHost + 21 * kPageSize);
    EXPECT_EQ(device_.recorder.violations(), 0U);
}

TEST_F(OneDevice, DomainInvalidationCoversPagesOfTheSameBatch) {
    tables_.map_pages(Iova(0), kRam, 8);
    machine_.manager.batch_begin();
    invalidate(Iova(0));
    machine_.manager.iotlb_domain(kDomain);
    invalidate(Iova(kPageSize));
    machine_.manager.iotlb_domain(kOther);
    machine_.manager.barrier();
    machine_.manager.batch_end();
    EXPECT_EQ(syncs(machine_, SyncTrigger::page), 0U);
    EXPECT_EQ(syncs(machine_, SyncTrigger::domain), 1U);
    EXPECT_EQ(host_at(device_, Iova(7 * kPageSize)), kHost + 7 * kPageSize);
}

TEST_F(OneDevice, AlignsAddressesAndTakesAnyMask) {
    tables_.map_pages(Iova(0), kRam, 8);
    invalidate(Iova(3 * kPageSize), 2);
    EXPECT_EQ(machine_.manager.counters().sync.leaves, 4U);
    invalidate(Iova(0x5000), 63);
    EXPECT_EQ(machine_.manager.counters().sync.leaves, 8U);
    invalidate(Iova(~std::uint64_t{0}), 0);
    invalidate(Iova(~std::uint64_t{0}), 51);
    EXPECT_EQ(machine_.manager.counters().sync.leaves, 8U);
}

TEST_F(OneDevice, ManyInvalidationsInOneBatch) {
    machine_.manager.batch_begin();
    for (unsigned page = 0; page < 5000; ++page) {
        const Iova iova(2 * kPageSize * page);
        tables_.map(iova, kRam);
        invalidate(iova);
    }
    machine_.manager.barrier();
    machine_.manager.batch_end();
    EXPECT_EQ(device_.recorder.mappings().size(), 5000U);
}

}  // namespace
}  // namespace umbra::testing
