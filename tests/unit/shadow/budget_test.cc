// SPDX-License-Identifier: GPL-2.0-or-later
//
// Budgets against tables that map very much.
#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "tests/unit/shadow/one_device.h"

namespace umbra::testing {
namespace {

using shadow::Trouble;

class SmallBudgets : public OneDevice {
  protected:
    SmallBudgets()
        : OneDevice({.coalesce = false,
                     .max_mappings = 1000,
                     .max_tables_domain = 20,
                     .max_tables_unit = 30}) {}
    // Each entry of each level leads to the same page of the next: 2^36 leaves in four pages.
    void map_everything() {
        const Gpa upper = tables_.allocate();
        const Gpa middle = tables_.allocate();
        const Gpa lowest = tables_.allocate();
        for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
            *machine_.memory.entry(tables_.root(), slot) = GuestTables::table(upper);
            *machine_.memory.entry(upper, slot) = GuestTables::table(middle);
            *machine_.memory.entry(middle, slot) = GuestTables::table(lowest);
            *machine_.memory.entry(lowest, slot) = GuestTables::leaf(kRam, 1);
        }
    }
};

TEST_F(SmallBudgets, HoldAgainstTablesThatMapEverything) {
    map_everything();
    machine_.manager.iotlb_domain(kDomain);
    const auto& sync = machine_.manager.counters().sync;
    EXPECT_EQ(sync.leaves, 1000U);
    EXPECT_LE(sync.tables, 20U);
    EXPECT_GT(sync.refused_mappings, 0U);
    EXPECT_EQ(machine_.events.count(Trouble::mapping_budget), 1U);
    EXPECT_FALSE(machine_.manager.verify().complete);

    // Later syncs stay cheap, and find the way back.
    const std::uint64_t compared = sync.tables_compared;
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_LE(sync.tables_compared - compared, 20U);
    for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
        *machine_.memory.entry(tables_.root(), slot) = 0;
    }
    tables_.map_pages(Iova(0), kRam, 900);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.mappings().size(), 900U);
    EXPECT_EQ(machine_.events.healings, std::vector{Trouble::mapping_budget});
    EXPECT_TRUE(machine_.manager.verify().clean());
}

TEST_F(SmallBudgets, TheUnitsTablesAreSharedByItsDomains) {
    for (unsigned i = 0; i < 40; ++i) {
        tables_.map(Iova(i * kLarge), kRam);
    }
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(machine_.manager.counters().sync.tables, 20U);
    EXPECT_EQ(machine_.manager.counters().sync.refused_tables, 23U);
    EXPECT_EQ(machine_.events.count(Trouble::table_budget), 1U);
    GuestTables others(machine_, 4, 128);
    for (unsigned i = 0; i < 40; ++i) {
        others.map(Iova(i * kLarge), kRam);
    }
    FakeDevice second(kSibling);
    machine_.contexts.translate(kSibling, kOther, others.root());
    machine_.manager.add_device(second);
    EXPECT_EQ(machine_.manager.counters().sync.tables, 30U);
    machine_.manager.remove_device(second);
    EXPECT_EQ(machine_.manager.counters().sync.tables, 20U);
}

class FewMappings : public OneDevice {
  protected:
    FewMappings() : OneDevice({.coalesce = false, .max_mappings = kMost}) {}

    static constexpr std::uint64_t kMost = 1000;
};

TEST_F(FewMappings, VerifyReadsNoMoreLeavesOfSharedTablesThanTheBudget) {
    // 64 entries lead to one table of 512 leaves.
    tables_.map_pages(Iova(0), kRam, kEntriesPerTable);
    const std::uint64_t shared = tables_.entry(Iova(0), 2);
    for (unsigned i = 1; i < 64; ++i) {
        tables_.entry(Iova(i * kLarge), 2) = shared;
    }
    machine_.manager.iotlb_domain(kDomain);
    const shadow::Verification found = machine_.manager.verify();
    EXPECT_FALSE(found.complete);
    EXPECT_EQ(found.stopped_at, Iova(kMost * kPageSize));
    EXPECT_EQ(found.pages_checked, kMost);
    EXPECT_EQ(found.errors + found.pending, 0U);
}

TEST_F(FewMappings, VerifyFindsErrorsBeyondThePlaceWhereItStopped) {
    constexpr Iova kHigh(4 * kLarge);
    tables_.map(kHigh, kRam);
    machine_.manager.iotlb_domain(kDomain);
    tables_.map_pages(Iova(0), kRam, 2 * kEntriesPerTable);
    EXPECT_TRUE(machine_.manager.verify().clean());
    EXPECT_EQ(machine_.manager.verify().stopped_at, Iova(kMost * kPageSize));

    // Behind the shadow's back.
    EXPECT_TRUE(device_.recorder.unmap(kHigh, kPageSize).ok());
    const shadow::Verification found = machine_.manager.verify();
    ASSERT_EQ(found.errors, 1U);
    EXPECT_EQ(found.differences[0].expected.iova, kHigh);
}

TEST_F(FewMappings, VerifyIsCompleteAtExactlyTheBudget) {
    tables_.map_pages(Iova(0), kRam, kMost);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_TRUE(machine_.manager.verify().complete);
    EXPECT_EQ(machine_.manager.verify().stopped_at, std::nullopt);
}

}  // namespace
}  // namespace umbra::testing
