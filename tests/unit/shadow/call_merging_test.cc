// SPDX-License-Identifier: GPL-2.0-or-later
//
// How many host calls a change of the tables takes, and which.
#include <gtest/gtest.h>

#include "tests/unit/shadow/one_device.h"

namespace umbra::testing {
namespace {

TEST_F(OneDevice, ContiguousMapsAreOneCallAndComeApartWhenNeeded) {
    tables_.map_pages(Iova(0), kRam, 512);
    invalidate(Iova(0), 9);
    EXPECT_EQ(device_.recorder.map_calls(), 1U);

    tables_.unmap(Iova(10 * kPageSize));
    tables_.unmap(Iova(20 * kPageSize));
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.unmap_calls(), 1U);
    // Two rests of up to 64 KiB, and one that is cut into blocks: pages 21 to 31, and then 32
    // pages, 64, 128 and 256.
    EXPECT_EQ(device_.recorder.map_calls(), 1U + 7);
    EXPECT_EQ(device_.recorder.mappings().size(), 7U);
    const auto& host = machine_.manager.counters().host;
    EXPECT_EQ(host.splits, 1U);
    EXPECT_EQ(host.live_mappings, 7U);
    EXPECT_EQ(host.pinned_bytes, 510 * kPageSize);
    EXPECT_EQ(device_.recorder.violations(), 0U);
}

// What is mapped by itself has to go by itself, and no other page with it, not even for a moment.
TEST_F(OneDevice, OnlyWhatOneInvalidationNamesIsOneCall) {
    tables_.map_pages(Iova(0), kRam, 1024);
    invalidate(Iova(0), 10);
    EXPECT_EQ(device_.recorder.map_calls(), 1U);

    const Iova alone(vtd::level_span(3));
    tables_.map_pages(alone, kRam, 8);
    machine_.manager.batch_begin();
    for (unsigned page = 0; page < 8; ++page) {
        invalidate(alone + page * kPageSize);
    }
    machine_.manager.barrier();
    EXPECT_EQ(device_.recorder.map_calls(), 1U + 8);
    const Iova blocks(2 * vtd::level_span(3));
    tables_.map_pages(blocks, kRam, 512 + 16);
    invalidate(blocks, 4);
    invalidate(blocks + 16 * kPageSize, 4);
    machine_.manager.barrier();
    EXPECT_EQ(device_.recorder.map_calls(), 1U + 8 + 2);
    machine_.manager.batch_end();
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.map_calls(), 1U + 8 + 2 + 512 - 16);

    tables_.unmap(alone + 3 * kPageSize);
    tables_.unmap(blocks + 100 * kPageSize);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(machine_.manager.counters().host.splits, 0U);
    EXPECT_EQ(device_.recorder.violations(), 0U);
}

TEST_F(OneDevice, UnmapsSpanHolesButNotLiveMappings) {
    for (unsigned page = 0; page < 300; page += 3) {
        tables_.map(Iova(page * kPageSize), kRam);
    }
    tables_.map(Iova(0x4000'0000), kRam);
    machine_.manager.iotlb_domain(kDomain);
    for (unsigned page = 0; page < 300; page += 3) {
        if (page != 150) {
            tables_.unmap(Iova(page * kPageSize));
        }
    }
    tables_.unmap(Iova(0x4000'0000));
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.unmap_calls(), 2U);
    EXPECT_EQ(device_.recorder.mappings().size(), 1U);
    EXPECT_EQ(host_at(device_, Iova(150 * kPageSize)), kHost);
}

TEST_F(WithoutCoalescing, EveryLeafIsACall) {
    tables_.map_pages(Iova(0), kRam, 512);
    invalidate(Iova(0), 9);
    EXPECT_EQ(device_.recorder.map_calls(), 512U);
    tables_.unmap(Iova(10 * kPageSize));
    invalidate(Iova(10 * kPageSize));
    EXPECT_EQ(device_.recorder.unmap_calls(), 1U);
    EXPECT_EQ(device_.recorder.map_calls(), 512U);
    // Unmaps that touch are one call all the same.
    tables_.unmap_pages(Iova(0), 512);
    invalidate(Iova(0), 9);
    EXPECT_EQ(device_.recorder.unmap_calls(), 2U);
}

TEST_F(OneDevice, NothingIsAllocatedOnTheHostForNothing) {
    tables_.map_pages(Iova(0), kRam, 4);
    machine_.manager.iotlb_domain(kDomain);
    const std::uint64_t before = calls(device_);
    // The guest writes the same entries again, with other ignored bits, and moves the table.
    const Gpa moved = tables_.allocate();
    for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
        *machine_.memory.entry(moved, slot) = tables_.entry(Iova(slot * kPageSize), 1);
    }
    tables_.entry(Iova(0), 2) = GuestTables::table(moved);
    tables_.entry(Iova(0), 1) |= std::uint64_t{1} << 52;
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(calls(device_), before);
}

TEST_F(OneDevice, AccessOfUpperLevelsCounts) {
    tables_.map_pages(Iova(0), kRam, 4);
    tables_.entry(Iova(0), 2) &= ~std::uint64_t{2};
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(mapped(device_.recorder, Iova(0)).access, Access::read);
    tables_.entry(Iova(0), 2) |= 2;
    invalidate(Iova(0), 9);
    EXPECT_EQ(mapped(device_.recorder, Iova(0)).access, Access::read_write);
}

}  // namespace
}  // namespace umbra::testing
