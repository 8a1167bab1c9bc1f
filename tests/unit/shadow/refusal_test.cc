// SPDX-License-Identifier: GPL-2.0-or-later
//
// What was refused comes back, and what one refusal says of other leaves (see refusal.h).
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "tests/unit/shadow/retries.h"

namespace umbra::testing {
namespace {

// Work that retry() put off.
void finish(FakeMachine& machine) {
    while (!machine.manager.run()) {
    }
}

// ---- Room ----

constexpr unsigned kPagesOfMemory = 16;

TEST_F(RetriesOfLeaves, AnUnmapMakesRoomForAnotherPage) {
    first_.recorder.entry_limit = 1;
    tables_.map(page(0), kRam);
    invalidate(page(0));
    tables_.map(page(9), kRam + 9 * kPageSize);
    invalidate(page(9));
    EXPECT_EQ(mapped(first_.recorder, page(9)), kNothing);
    tables_.unmap_pages(page(0), 1);
    invalidate(page(0));
    EXPECT_EQ(mapped(first_.recorder, page(9)), at(9 * kPageSize));
    EXPECT_EQ(host().missing_leaves, 0U);
    EXPECT_EQ(machine_.events.healings.size(), 1U);
    EXPECT_TRUE(machine_.manager.verify().clean());
}

// As many come as went, and one more call shows that the host is full again.
TEST_F(RetriesOfLeaves, RoomIsUsedUpAndNoMore) {
    first_.recorder.entry_limit = 10;
    tables_.map_pages(page(0), kRam, 2000);
    invalidate_domain();
    const std::uint64_t calls = first_.recorder.map_calls();
    tables_.unmap_pages(page(2), 3);
    invalidate(page(2), 1);
    invalidate(page(4));
    EXPECT_EQ(first_.recorder.mappings().size(), 10U);
    EXPECT_EQ(first_.recorder.map_calls(), calls + 3 + 2);
    EXPECT_EQ(host().missing_leaves, 1997U - 10);
}

TEST_F(RetriesOfLeaves, MemoryThatIsNoLongerPinnedMakesRoom) {
    std::uint64_t pinned = 0;
    first_.recorder.fail = [&](bool is_map, Iova, std::uint64_t bytes) {
        if (!is_map) {
            pinned -= bytes;
            return 0;
        }
        if (pinned + bytes > kPagesOfMemory * kPageSize) {
            return ENOMEM;
        }
        pinned += bytes;
        return 0;
    };
    // Too large, and then one that fits all the same.
    tables_.map(Iova(0x4000'0000), kRam + 0x4000'0000, Access::read_write, 3);
    tables_.map_pages(page(0), kRam, kPagesOfMemory);
    invalidate_domain();
    EXPECT_EQ(host().missing_leaves, 1U);
    expect_mapped(first_, 0, kPagesOfMemory);
    tables_.map(page(600), kRam + 600 * kPageSize);
    invalidate(page(600));
    EXPECT_EQ(host().missing_leaves, 2U);
    tables_.unmap_pages(page(3), 1);
    invalidate(page(3));
    EXPECT_EQ(mapped(first_.recorder, page(600)), at(600 * kPageSize));
    first_.recorder.fail = nullptr;
}

// ---- Addresses ----

TEST_F(RetriesOfLeaves, ADeviceThatCannotMapSomeAddressesGetsTheOthers) {
    tables_.map_pages(page(0), kRam, 100);
    invalidate_domain();
    second_.recorder.fail = [](bool is_map, Iova iova, std::uint64_t) {
        return is_map && iova < page(50) ? EINVAL : 0;
    };
    machine_.manager.add_device(second_);
    expect_mapped(second_, 50, 100);
    EXPECT_EQ(host().missing_leaves, 50U);
}

TEST_F(RetriesOfLeaves, ManyBadAddressesDoNotEndASync) {
    for (const int error : {EINVAL, EFAULT, ENOMEM}) {
        first_.recorder.fail = [&](bool is_map, Iova iova, std::uint64_t) {
            return is_map && iova < page(80) ? error : 0;
        };
        tables_.map_pages(page(0), kRam, 100);
        invalidate_domain();
        expect_mapped(first_, 80, 100);
        EXPECT_EQ(host().missing_leaves, 80U);
        tables_.unmap_pages(page(0), 100);
        invalidate_domain();
        ASSERT_EQ(host().missing_leaves, 0U);
    }
}

// A sync that does not name them tries a few, so that thousands do not cost as many calls each
// time. Every one gets its turn.
TEST_F(RetriesOfLeaves, KnownBadAddressesAreTriedAFewAtATime) {
    bool refuse = true;
    first_.recorder.fail = [&](bool is_map, Iova iova, std::uint64_t) {
        return is_map && refuse && iova < page(1000) ? EINVAL : 0;
    };
    tables_.map_pages(page(0), kRam, 1000);
    invalidate_domain();
    EXPECT_EQ(first_.recorder.map_calls(), 1000U);
    invalidate_domain();
    EXPECT_EQ(first_.recorder.map_calls(), 1016U);
    // They do not stand in the way of others that wait.
    first_.recorder.entry_limit = 0;
    tables_.map(page(5000), kRam + 5000 * kPageSize);
    invalidate(page(5000));
    first_.recorder.entry_limit = 1;
    invalidate_domain();
    EXPECT_EQ(mapped(first_.recorder, page(5000)), at(5000 * kPageSize));
    // The guest names one of them.
    const std::uint64_t calls = first_.recorder.map_calls();
    invalidate(page(700));
    EXPECT_EQ(first_.recorder.map_calls(), calls + 1);
    first_.recorder.entry_limit = 10'000;
    refuse = false;
    invalidate_domain();
    expect_mapped(first_, 0, 1000);
}

// ---- Without the guest's doing ----

TEST_F(RetriesOfLeaves, RefusedMapsAreTriedAgainAfterAWhile) {
    EXPECT_EQ(machine_.manager.retry_delay_ms(), 0U);
    first_.recorder.entry_limit = 3;
    tables_.map_pages(page(0), kRam, 10);
    invalidate_domain();
    unsigned expected = 1000;
    for (unsigned i = 0; i < 10; ++i) {
        EXPECT_EQ(machine_.manager.retry_delay_ms(), expected);
        const std::uint64_t calls = first_.recorder.map_calls();
        machine_.manager.retry();
        finish(machine_);
        EXPECT_EQ(first_.recorder.map_calls(), calls + 1);
        expected = std::min(2 * expected, 64'000U);
    }
    first_.recorder.entry_limit = 10;
    machine_.manager.retry();
    EXPECT_EQ(machine_.manager.retry_delay_ms(), 0U) << "it is under way";
    finish(machine_);
    expect_mapped(first_, 0, 10);
    EXPECT_EQ(machine_.manager.retry_delay_ms(), 0U);
    EXPECT_EQ(machine_.manager.counters().sync.syncs[telemetry::SyncTrigger::retry], 11U);
    // The next trouble is tried soon, and other trouble does not wait for old trouble.
    first_.recorder.entry_limit = 5;
    tables_.map(page(100), kRam);
    invalidate(page(100));
    EXPECT_EQ(machine_.manager.retry_delay_ms(), 1000U);
    for (unsigned i = 0; i < 4; ++i) {
        machine_.manager.retry();
        finish(machine_);
    }
    EXPECT_EQ(machine_.manager.retry_delay_ms(), 16'000U);
    tables_.map(page(200), kRam);
    invalidate(page(200));
    EXPECT_EQ(machine_.manager.retry_delay_ms(), 1000U);
}

TEST_F(RetriesOfLeaves, RefusedUnmapsAreTriedAgainAfterAWhile) {
    tables_.map_pages(page(0), kRam, 40);
    invalidate_domain();
    // The first thirty stay stuck, and do not keep the others from being tried.
    Iova refused_below = page(40);
    first_.recorder.fail = [&](bool is_map, Iova iova, std::uint64_t) {
        return !is_map && iova < refused_below ? EBUSY : 0;
    };
    for (unsigned i = 0; i < 40; ++i) {
        tables_.unmap_pages(page(i), 1);
        invalidate(page(i));
    }
    EXPECT_EQ(first_.recorder.mappings().size(), 40U);
    EXPECT_EQ(machine_.manager.retry_delay_ms(), 1000U);
    refused_below = page(30);
    for (unsigned i = 0; i < 3; ++i) {
        machine_.manager.retry();
        finish(machine_);
    }
    EXPECT_EQ(first_.recorder.mappings().size(), 30U);
    refused_below = Iova(0);
    machine_.manager.retry();
    finish(machine_);
    EXPECT_EQ(first_.recorder.mappings().size(), 0U);
    EXPECT_EQ(machine_.manager.retry_delay_ms(), 0U);
}

// ---- What the guest names ----

TEST_F(RetriesOfLeaves, KnownBadAddressesDoNotHideOthersThatAreNamed) {
    first_.recorder.fail = [](bool is_map, Iova iova, std::uint64_t) {
        return !is_map ? 0 : iova < page(80) ? EINVAL : ENOSPC;
    };
    tables_.map_pages(page(0), kRam, 100);
    invalidate_domain();
    EXPECT_EQ(host().missing_leaves, 100U);
    first_.recorder.fail = [](bool is_map, Iova iova, std::uint64_t) {
        return is_map && iova < page(80) ? EINVAL : 0;
    };
    invalidate(page(0), 7);
    expect_mapped(first_, 80, 100);
}

TEST_F(RetriesOfLeaves, KnownBadAddressesThatAreNamedAreAllTried) {
    bool all = true;
    first_.recorder.fail = [&](bool is_map, Iova iova, std::uint64_t) {
        return is_map && (all || iova < page(80)) ? EINVAL : 0;
    };
    tables_.map_pages(page(0), kRam, 100);
    invalidate_domain();
    all = false;
    invalidate(page(0), 7);
    invalidate(page(0), 7);
    expect_mapped(first_, 80, 100);
}

// ---- Devices without a domain ----

TEST_F(RetriesOfLeaves, UnmapsStuckWithoutADomainAreTriedAfterAWhile) {
    tables_.map_pages(page(0), kRam, 3);
    invalidate_domain();
    first_.recorder.fail = [](bool is_map, Iova, std::uint64_t) { return is_map ? 0 : EBUSY; };
    machine_.manager.translation_changed(false);
    EXPECT_EQ(first_.recorder.mappings().size(), 3U);
    first_.recorder.fail = nullptr;
    EXPECT_NE(machine_.manager.retry_delay_ms(), 0U);
    machine_.manager.retry();
    finish(machine_);
    EXPECT_EQ(first_.recorder.mappings().size(), 0U);
}

}  // namespace
}  // namespace umbra::testing
