// SPDX-License-Identifier: GPL-2.0-or-later
//
// Invalidations that concern more than they name: of a part of a large leaf, of an entry that
// grants another access to all below it, and of a domain that a pass-through device was in.
#include <gtest/gtest.h>

#include "tests/support/guest_tables.h"

namespace umbra::testing {
namespace {

using shadow::DmaMode;

constexpr std::uint64_t kLarge = vtd::level_span(2);
constexpr std::uint64_t kHuge = vtd::level_span(3);
constexpr DomainId kDomain{3};
constexpr Gpa kRam = FakeMachine::kRam;
constexpr HostAddress kHost = FakeMachine::kHost;
const SourceId kDevice(0, 0x08);

class WiderChange : public ::testing::Test {
  protected:
    explicit WiderChange(const shadow::Options& options = {}) : machine_(options) {
        machine_.contexts.translate(kDevice, kDomain, tables_.root());
        machine_.manager.add_device(device_);
    }
    ~WiderChange() override {
        EXPECT_EQ(device_.recorder.violations(), 0U);
        machine_.manager.remove_device(device_);
        EXPECT_EQ(device_.recorder.mappings().size(), 0U);
    }

    void invalidate(Iova iova, unsigned mask = 0) {
        machine_.manager.iotlb_pages(kDomain, iova, mask, false);
    }
    [[nodiscard]] FakeRamMap::Target mapped_at(Iova iova) const {
        return mapped(device_.recorder, iova);
    }
    // The large leaf of `level` at IOVA 0 gives way to a table (of tables) for the same pages.
    void take_apart(unsigned level, std::size_t pages) {
        tables_.entry(Iova(0), level) = 0;
        tables_.map_pages(Iova(0), kRam, pages);
    }

    FakeMachine machine_;
    GuestTables tables_{machine_};
    FakeDevice device_{kDevice};
};

class WiderChangeInSlices : public WiderChange {
  protected:
    WiderChangeInSlices()
        : WiderChange({.coalesce = false, .slice_ns = 1'000'000, .tables_per_look = 1}) {}

    // What a PSI does in its first slice is the return value: calls of the host.
    std::uint64_t first_slice(Iova iova) {
        const std::uint64_t before = calls();
        machine_.clock.step = 1'000'000;
        machine_.manager.batch_begin();
        invalidate(iova);
        machine_.manager.barrier();
        machine_.manager.batch_end();
        return calls() - before;
    }
    [[nodiscard]] std::uint64_t calls() const {
        return device_.recorder.map_calls() + device_.recorder.unmap_calls();
    }
    void run_to_the_end() {
        for (unsigned slices = 0; !machine_.manager.run(); ++slices) {
            ASSERT_LT(slices, 10'000U);
        }
    }
};

TEST_F(WiderChange, LargeLeafGivesWayToATableAndOnePageIsNamed) {
    tables_.map(Iova(0), kRam, Access::read_write, 2);
    invalidate(Iova(0), 9);
    take_apart(2, 512);
    tables_.unmap(Iova(300 * kPageSize));
    invalidate(Iova(300 * kPageSize));
    for (unsigned page = 0; page < 512; ++page) {
        const std::uint64_t offset = page * kPageSize;
        ASSERT_EQ(mapped_at(Iova(offset)),
                  page == 300 ? FakeRamMap::Target{}
                              : (FakeRamMap::Target{kHost + offset, Access::read_write}))
            << page;
    }
    EXPECT_EQ(machine_.manager.verify().pending, 0U);
}

TEST_F(WiderChange, WhatAPartOfALargeLeafLeavesMissingIsTriedAgain) {
    tables_.map(Iova(0), kRam, Access::read_write, 2);
    invalidate(Iova(0), 9);
    take_apart(2, 512);
    tables_.unmap(Iova(300 * kPageSize));
    device_.recorder.entry_limit = 1;
    invalidate(Iova(300 * kPageSize));
    device_.recorder.entry_limit = 1000;
    take_apart(2, 512);
    invalidate(Iova(0), 9);
    EXPECT_EQ(mapped_at(Iova(511 * kPageSize)).host, kHost + 511 * kPageSize);
}

TEST_F(WiderChangeInSlices, HugeLeafGivesWayToTablesAndOnePageIsNamed) {
    tables_.map(Iova(0), kRam, Access::read_write, 3);
    invalidate(Iova(0), 18);
    // Not all of the 512 tables: with these there is no leaf of the same translation.
    tables_.entry(Iova(0), 3) = 0;
    for (unsigned table = 0; table < 60; ++table) {
        tables_.map(Iova(table * kLarge), kRam + table * kLarge);
    }
    first_slice(Iova(30 * kLarge));
    EXPECT_FALSE(machine_.manager.caught_up());
    run_to_the_end();
    for (unsigned table = 0; table < 60; ++table) {
        ASSERT_EQ(mapped_at(Iova(table * kLarge)).host, kHost + table * kLarge) << table;
    }
    EXPECT_EQ(mapped_at(Iova(60 * kLarge)), FakeRamMap::Target{});
    EXPECT_EQ(machine_.manager.verify().pending, 0U);
}

TEST_F(WiderChange, AccessOfAWholeTableChangesWithTheEntryAboveIt) {
    tables_.map_pages(Iova(0), kRam, 512);
    tables_.map_pages(Iova(kLarge), kRam + kHuge, 512);
    invalidate(Iova(0), 18);
    tables_.entry(Iova(0), 2) &= ~std::uint64_t{2};
    invalidate(Iova(5 * kPageSize));
    for (unsigned page = 0; page < 512; ++page) {
        const std::uint64_t offset = page * kPageSize;
        ASSERT_EQ(mapped_at(Iova(offset)), (FakeRamMap::Target{kHost + offset, Access::read}));
    }
    EXPECT_EQ(mapped_at(Iova(kLarge)).access, Access::read_write);
    tables_.entry(Iova(0), 2) |= 2;
    invalidate(Iova(0), 9);
    EXPECT_EQ(mapped_at(Iova(511 * kPageSize)).access, Access::read_write);
    EXPECT_TRUE(machine_.manager.verify().clean());
}

TEST_F(WiderChangeInSlices, AccessOfATreeChangesTableByTable) {
    for (unsigned table = 0; table < 100; ++table) {
        for (unsigned page = 0; page < 64; ++page) {
            tables_.map(Iova(table * kLarge + page * 2 * kPageSize), kRam);
        }
    }
    invalidate(Iova(0), 18);
    ASSERT_EQ(device_.recorder.mappings().size(), 6400U);
    tables_.entry(Iova(0), 3) &= ~std::uint64_t{2};
    EXPECT_LT(first_slice(Iova(50 * kLarge)), 1000U);
    EXPECT_FALSE(machine_.manager.caught_up());
    // Before the end each is mapped as before or as after, except what the slice left of the one
    // table under way, and the account says which.
    EXPECT_EQ(machine_.manager.verify().errors, 0U);
    EXPECT_GT(device_.recorder.mappings().size(), 6400U - 64);
    run_to_the_end();
    for (unsigned table = 0; table < 100; ++table) {
        ASSERT_EQ(mapped_at(Iova(table * kLarge)).access, Access::read) << table;
    }
    EXPECT_EQ(device_.recorder.mappings().size(), 6400U);
    EXPECT_TRUE(machine_.manager.verify().clean());
    EXPECT_EQ(machine_.manager.verify().pending, 0U);
}

TEST_F(WiderChangeInSlices, AccessThatChangesAgainOnItsWay) {
    for (unsigned table = 0; table < 100; ++table) {
        tables_.map(Iova(table * kLarge), kRam + table * kPageSize);
    }
    invalidate(Iova(0), 18);
    tables_.entry(Iova(0), 3) &= ~std::uint64_t{2};
    first_slice(Iova(0));
    ASSERT_FALSE(machine_.manager.caught_up());
    tables_.entry(Iova(0), 3) |= 2;
    tables_.entry(Iova(7 * kLarge), 2) &= ~std::uint64_t{2};
    machine_.manager.iotlb_domain(kDomain);
    run_to_the_end();
    for (unsigned table = 0; table < 100; ++table) {
        ASSERT_EQ(mapped_at(Iova(table * kLarge)).access,
                  table == 7 ? Access::read : Access::read_write)
            << table;
    }
    EXPECT_TRUE(machine_.manager.verify().clean());
}

TEST(WiderContext, DomainInvalidationReachesAPassThroughDeviceThatWasInIt) {
    FakeMachine machine;
    FakeDevice device(kDevice);
    machine.contexts.pass_through(kDevice);
    machine.manager.add_device(device);
    machine.contexts.block(kDevice);
    machine.manager.context_domain(kDomain);
    EXPECT_EQ(device.modes, (std::vector<DmaMode>{DmaMode::pass_through, DmaMode::blocked}));
    machine.manager.remove_device(device);
}

}  // namespace
}  // namespace umbra::testing
