// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the operator is told of trouble, and how often.
#include <gtest/gtest.h>

#include <cerrno>
#include <vector>

#include "tests/unit/shadow/retries.h"

namespace umbra::testing {
namespace {

using shadow::Trouble;

// ---- What the operator is told, of all devices of a domain ----

int fail_maps(bool is_map, Iova /*iova*/, std::uint64_t /*bytes*/) {
    return is_map ? ENOMEM : 0;
}
int refuse_unmaps(bool is_map, Iova /*iova*/, std::uint64_t /*bytes*/) {
    return is_map ? 0 : EBUSY;
}

TEST_F(RetriesWithStop, TroubleLeavesWithItsDevice) {
    machine_.manager.add_device(second_);
    first_.recorder.fail = fail_maps;
    tables_.map(page(0), kRam);
    invalidate(page(0));
    EXPECT_EQ(machine_.events.stops, 1U);
    machine_.contexts.block(kFirst);
    machine_.manager.context_device(kDomain, kFirst, 0);
    EXPECT_EQ(machine_.events.healings, std::vector{Trouble::map_failed});

    second_.recorder.fail = fail_maps;
    tables_.map(page(1), kRam);
    invalidate(page(1));
    EXPECT_EQ(machine_.events.stops, 2U);
}

TEST_F(Retries, TroubleHasHealedWhenNoDeviceHasIt) {
    machine_.manager.add_device(second_);
    first_.recorder.entry_limit = second_.recorder.entry_limit = 0;
    tables_.map(page(0), kRam);
    invalidate(page(0));
    EXPECT_EQ(machine_.events.count(Trouble::map_failed), 1U);
    first_.recorder.entry_limit = 1;
    invalidate(page(0));
    EXPECT_EQ(host().missing_leaves, 1U);
    EXPECT_TRUE(machine_.events.healings.empty());
    second_.recorder.entry_limit = 1;
    invalidate(page(0));
    EXPECT_EQ(machine_.events.healings, std::vector{Trouble::map_failed});
}

TEST_F(Retries, RefusedUnmapHasHealedWhenNoDeviceHasIt) {
    machine_.manager.add_device(second_);
    tables_.map(page(0), kRam);
    invalidate(page(0));
    first_.recorder.fail = second_.recorder.fail = refuse_unmaps;
    tables_.unmap(page(0));
    invalidate(page(0));
    EXPECT_EQ(machine_.events.count(Trouble::unmap_refused), 1U);
    first_.recorder.fail = nullptr;
    invalidate(page(0));
    EXPECT_EQ(first_.recorder.mappings().size(), 0U);
    EXPECT_TRUE(machine_.events.healings.empty());
    second_.recorder.fail = nullptr;
    invalidate(page(0));
    EXPECT_EQ(machine_.events.healings, std::vector{Trouble::unmap_refused});
}

// What a device takes out of the domain has not healed, but is no longer the domain's.
TEST_F(Retries, RefusedUnmapOfADeviceThatLeavesIsNotToldToHaveHealed) {
    machine_.manager.add_device(second_);
    tables_.map(page(0), kRam);
    invalidate(page(0));
    first_.recorder.fail = refuse_unmaps;
    machine_.contexts.block(kFirst);
    machine_.manager.context_device(kDomain, kFirst, 0);
    EXPECT_EQ(first_.recorder.mappings().size(), 1U);
    EXPECT_EQ(machine_.events.count(Trouble::unmap_refused), 1U);
    invalidate(page(0));
    EXPECT_TRUE(machine_.events.healings.empty());

    machine_.clock.now += std::uint64_t{3600} * 1'000'000'000;
    second_.recorder.fail = refuse_unmaps;
    tables_.unmap(page(0));
    invalidate(page(0));
    EXPECT_EQ(machine_.events.count(Trouble::unmap_refused), 2U);
}

// ---- How often the operator is told ----

constexpr std::uint64_t kMinute = std::uint64_t{60} * 1'000'000'000;
constexpr Gpa kNowhere{0x8000'0000};

TEST_F(Retries, GuestThatMakesTroubleAgainAndAgainIsToldOfOnceAMinute) {
    const auto make_trouble = [&](unsigned times) {
        for (unsigned i = 0; i < times; ++i) {
            tables_.map(page(0), kNowhere);
            invalidate(page(0));
            tables_.unmap(page(0));
            invalidate(page(0));
        }
    };
    make_trouble(1000);
    const auto& events = machine_.events;
    ASSERT_EQ(events.troubles.size(), 1U);
    EXPECT_EQ(events.troubles[0].untold, 0U);
    EXPECT_EQ(events.healings, std::vector{Trouble::not_ram});
    EXPECT_EQ(machine_.manager.counters().sync.not_ram, 1000U);

    machine_.clock.now += kMinute;
    make_trouble(1000);
    ASSERT_EQ(events.troubles.size(), 2U);
    EXPECT_EQ(events.troubles[1].untold, 999U);
    EXPECT_EQ(events.healings.size(), 2U);
    machine_.clock.now += kMinute - 1;
    make_trouble(1);
    EXPECT_EQ(events.troubles.size(), 2U);
    machine_.clock.now += 1;
    make_trouble(1);
    ASSERT_EQ(events.troubles.size(), 3U);
    EXPECT_EQ(events.troubles[2].untold, 1000U);
    EXPECT_EQ(machine_.manager.counters().sync.not_ram, 2002U);
}

TEST_F(Retries, NewDomainsAreNoWayAroundIt) {
    for (std::uint16_t id = 100; id < 200; ++id) {
        // Another identity and another top-level table, with the same trouble in it.
        GuestTables tables(machine_, 4, 100 + 10 * (id % 2));
        tables.map(page(0), kNowhere);
        machine_.contexts.translate(kFirst, DomainId{id}, tables.root());
        machine_.manager.context_device(DomainId{id}, kFirst, 0);
    }
    EXPECT_EQ(machine_.events.count(Trouble::not_ram), 1U);
    EXPECT_EQ(machine_.manager.counters().sync.not_ram, 100U);
    // Trouble of another kind is told at once all the same.
    first_.recorder.fail = fail_maps;
    machine_.contexts.translate(kFirst, kDomain, tables_.root());
    tables_.map(page(0), kRam);
    machine_.manager.context_device(kDomain, kFirst, 0);
    EXPECT_EQ(machine_.events.count(Trouble::map_failed), 1U);
}

TEST_F(RetriesWithStop, StopsEachTimeAndSaysWhy) {
    first_.recorder.fail = fail_maps;
    for (unsigned i = 1; i <= 10; ++i) {
        tables_.map(page(0), kRam);
        invalidate(page(0));
        EXPECT_EQ(machine_.events.stops, i);
        tables_.unmap(page(0));
        invalidate(page(0));
    }
    EXPECT_EQ(machine_.events.troubles.size(), 10U);
    EXPECT_EQ(machine_.events.healings.size(), 10U);
}

TEST_F(Retries, TroubleThatLastsIsToldWhenItCanBe) {
    tables_.map(page(0), kNowhere);
    invalidate(page(0));
    tables_.unmap(page(0));
    invalidate(page(0));
    tables_.map(page(1), kNowhere);
    invalidate(page(1));
    tables_.map(page(2), kNowhere);
    invalidate(page(2));
    EXPECT_EQ(machine_.events.troubles.size(), 1U);
    machine_.clock.now += kMinute;
    invalidate(page(7));
    ASSERT_EQ(machine_.events.troubles.size(), 2U);
    EXPECT_EQ(machine_.events.troubles[1].range.first, page(1));
    EXPECT_EQ(machine_.events.troubles[1].untold, 0U);
    invalidate(page(7));
    EXPECT_EQ(machine_.events.troubles.size(), 2U);
    EXPECT_EQ(machine_.events.healings.size(), 1U);
    tables_.unmap_pages(page(1), 2);
    invalidate(page(0), 2);
    EXPECT_EQ(machine_.events.healings.size(), 2U);
}

}  // namespace
}  // namespace umbra::testing
