// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the host refused, or was not asked for in time, and how the shadow gets there all the same.
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <vector>

#include "tests/support/guest_tables.h"

namespace umbra::testing {
namespace {

using shadow::Options;
using shadow::Trouble;

constexpr DomainId kDomain{3};
constexpr Gpa kRam = FakeMachine::kRam;
constexpr HostAddress kHost = FakeMachine::kHost;
const SourceId kFirst(0, 0x08);
const SourceId kSecond(0, 0x10);
constexpr FakeRamMap::Target kNothing{};

constexpr Iova page(unsigned number) {
    return Iova(number * kPageSize);
}
FakeRamMap::Target at(std::uint64_t offset, Access access = Access::read_write) {
    return {kHost + offset, access};
}

// A domain with one device, and a second device that can come to it.
class Retries : public ::testing::Test {
  public:
    ~Retries() override {
        for (FakeDevice* device : {&first_, &second_}) {
            device->recorder.fail = nullptr;
            machine_.manager.remove_device(*device);
            EXPECT_EQ(device->recorder.mappings().size(), 0U);
        }
    }

  protected:
    explicit Retries(const Options& options = {}) : machine_(options), tables_(machine_) {
        machine_.contexts.translate(kFirst, kDomain, tables_.root());
        machine_.contexts.translate(kSecond, kDomain, tables_.root());
        machine_.manager.add_device(first_);
    }
    void invalidate(Iova iova, unsigned mask = 0) {
        machine_.manager.iotlb_pages(kDomain, iova, mask, false);
    }
    void invalidate_domain() { machine_.manager.iotlb_domain(kDomain); }
    // By one invalidation of pages, so that what is contiguous becomes one mapping.
    void invalidate_pages_of_all() { invalidate(Iova(0), 27); }
    [[nodiscard]] const telemetry::HostCounters& host() const {
        return machine_.manager.counters().host;
    }
    // Whether pages [from, end) of the device, from IOVA 0 on, reach guest RAM from its start on.
    static void expect_mapped(const FakeDevice& device, unsigned from, unsigned end,
                              Access access = Access::read_write) {
        for (unsigned number = from; number < end; ++number) {
            EXPECT_EQ(mapped(device.recorder, page(number)), at(number * kPageSize, access))
                << "page " << number;
        }
    }

    FakeMachine machine_;
    GuestTables tables_;
    FakeDevice first_{kFirst};
    FakeDevice second_{kSecond};
};

// ---- Runs of joined leaves ----

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

class RetriesOfLeaves : public Retries {
  protected:
    RetriesOfLeaves() : Retries({.coalesce = false}) {}
};

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

// ---- What is stuck ----

// Each stretch has its turn, also if others go or come apart together with one.
TEST_F(Retries, StuckStretchesThatOverlapDoNotKeepOthersFromTheirTurn) {
    tables_.map_pages(page(4), kRam, 4);
    tables_.map(page(100), kRam);
    invalidate_pages_of_all();
    bool refuse = true;
    first_.recorder.fail = [&](bool is_map, Iova, std::uint64_t) {
        return !is_map && refuse ? EBUSY : 0;
    };
    tables_.unmap_pages(page(4), 4);
    invalidate(page(4), 2);
    tables_.unmap(page(100));
    invalidate(page(100));
    // Those pages again, in the middle of more that cannot be mapped over them.
    tables_.map_pages(page(0), kRam, 12);
    invalidate(page(0), 4);
    tables_.unmap_pages(page(0), 12);
    invalidate(page(0), 4);
    EXPECT_EQ(first_.recorder.mappings().size(), 2U);

    refuse = false;
    invalidate_domain();
    EXPECT_EQ(first_.recorder.mappings().size(), 0U);
    EXPECT_EQ(host().live_mappings, 0U);
    EXPECT_EQ(host().pinned_bytes, 0U);
    EXPECT_TRUE(machine_.manager.verify().clean());
}

// ---- What was mapped and has to be mapped again ----

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

class RetriesWithStop : public Retries {
  protected:
    RetriesWithStop() : Retries({.on_map_error = shadow::OnMapError::stop}) {}
};

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

// ---- What there was no time for ----

constexpr std::uint64_t kMillisecond = 1'000'000;

// Each map takes a millisecond, and so long is a slice.
class RetriesInSlices : public Retries {
  protected:
    explicit RetriesInSlices(bool coalesce = false)
        : Retries({.coalesce = coalesce, .slice_ns = kMillisecond}) {
        slow_down(first_);
        slow_down(second_);
    }
    void slow_down(FakeDevice& device) {
        device.recorder.fail = [this](bool is_map, Iova iova, std::uint64_t) {
            machine_.clock.now += is_map ? kMillisecond : 0;
            return is_map && iova < refused_below_ ? EINVAL : 0;
        };
    }
    [[nodiscard]] std::uint64_t map_calls() const {
        return first_.recorder.map_calls() + second_.recorder.map_calls();
    }
    // A batch of invalidations, of which the work comes to an end in many short slices.
    template <class Batch>
    void expect_slices(std::uint64_t most_calls, Batch&& batch) {
        std::uint64_t before = map_calls();
        machine_.manager.batch_begin();
        batch();
        machine_.manager.barrier();
        EXPECT_FALSE(machine_.manager.caught_up());
        machine_.manager.batch_end();
        EXPECT_LE(map_calls() - before, most_calls);
        for (bool done = false; !done;) {
            if (between_slices) {
                between_slices();
            }
            before = map_calls();
            done = machine_.manager.run();
            EXPECT_LE(map_calls() - before, most_calls);
            ASSERT_TRUE(done || map_calls() > before) << "no progress";
        }
        EXPECT_TRUE(machine_.manager.caught_up());
    }

    // A flush begins with a few maps before it looks at the clock.
    static constexpr std::uint64_t kFew = 10;
    Iova refused_below_;
    std::function<void()> between_slices;
};

TEST_F(RetriesInSlices, MapsOfASyncStopWhenTheTimeHasCome) {
    tables_.map_pages(page(0), kRam, 200);
    expect_slices(kFew, [&] { invalidate_domain(); });
    expect_mapped(first_, 0, 200);
    EXPECT_EQ(host().map.calls, 200U);
    EXPECT_EQ(host().map.failures, 0U);
    EXPECT_EQ(host().map.retries, 0U) << "each was tried once";
    EXPECT_EQ(host().missing_leaves, 0U);
    EXPECT_TRUE(machine_.events.troubles.empty());
    EXPECT_EQ(machine_.manager.counters().sync.syncs[telemetry::SyncTrigger::domain], 1U);
    EXPECT_TRUE(machine_.manager.verify().clean());

    // A device that comes to the domain.
    expect_slices(kFew, [&] { machine_.manager.add_device(second_); });
    expect_mapped(second_, 0, 200);
    EXPECT_EQ(host().map.calls, 400U);
    EXPECT_EQ(host().map.retries, 0U);

    // Both, by pages.
    tables_.map_pages(page(1024), kRam + 1024 * kPageSize, 200);
    expect_slices(2 * kFew, [&] { invalidate(page(1024), 8); });
    expect_mapped(first_, 1024, 1224);
    expect_mapped(second_, 1024, 1224);
    EXPECT_EQ(host().map.calls, 800U);
    EXPECT_EQ(host().missing_leaves, 0U);
    EXPECT_EQ(first_.recorder.violations() + second_.recorder.violations(), 0U);
}

// Also what lies outside of the pages that were named.
TEST_F(RetriesInSlices, PagesWhoseInvalidationConcernsMore) {
    tables_.map_pages(page(0), kRam, 200);
    expect_slices(kFew, [&] { invalidate_domain(); });
    tables_.entry(page(0), 2) &= ~std::uint64_t{2};
    expect_slices(kFew, [&] { invalidate(page(8)); });
    expect_mapped(first_, 0, 200, Access::read);
    EXPECT_EQ(host().missing_leaves, 0U);
    EXPECT_EQ(host().map.retries, 0U);
}

// More in a row than a pass over what failed before has.
TEST_F(RetriesInSlices, FailuresDoNotEndWhatWasPutOff) {
    tables_.map_pages(page(0), kRam, 200);
    refused_below_ = page(40);
    expect_slices(kFew + 16, [&] { invalidate(page(0), 8); });
    expect_mapped(first_, 40, 200);
    EXPECT_EQ(host().missing_leaves, 40U);
    EXPECT_EQ(machine_.events.troubles.size(), 1U);
    refused_below_ = page(0);
    invalidate(page(0), 6);
    (void)machine_.manager.run();
    machine_.manager.batch_begin();
    machine_.manager.batch_end();
    while (!machine_.manager.run()) {
    }
    expect_mapped(first_, 0, 200);
}

TEST_F(RetriesInSlices, WhatTheGuestDoesMeanwhile) {
    tables_.map_pages(page(0), kRam, 300);
    unsigned slice = 0;
    between_slices = [&] {
        switch (++slice) {
            case 2:
                // What is put off is no error, and nobody has waited for it in vain.
                EXPECT_TRUE(machine_.manager.verify().clean());
                EXPECT_GT(machine_.manager.verify().pending, 0U);
                break;
            case 3:
                tables_.unmap_pages(page(5), 200);
                machine_.manager.batch_begin();
                invalidate(page(5), 8);
                machine_.manager.iotlb_domain(kDomain);
                machine_.manager.batch_end();
                break;
            case 5:
                machine_.ram.set({{kRam, FakeMachine::kRamBytes, kHost + 0x20'0000, false}});
                break;
            default:
                break;
        }
    };
    expect_slices(2 * kFew, [&] { invalidate(page(0), 9); });
    EXPECT_GT(slice, 5U);
    for (unsigned number = 0; number < 300; ++number) {
        const bool gone = number >= 5 && number < 205;
        EXPECT_EQ(mapped(first_.recorder, page(number)),
                  gone ? kNothing : at(0x20'0000 + number * kPageSize))
            << number;
    }
    EXPECT_EQ(first_.recorder.violations(), 0U);
    EXPECT_EQ(host().missing_leaves, 0U);
    EXPECT_EQ(host().pinned_bytes, 100 * kPageSize);
    EXPECT_EQ(host().map.bytes - host().unmap.bytes, host().pinned_bytes);
}

TEST_F(RetriesInSlices, DeviceThatLeavesMeanwhile) {
    machine_.manager.add_device(second_);
    tables_.map_pages(page(0), kRam, 100);
    machine_.manager.batch_begin();
    invalidate_domain();
    machine_.manager.barrier();
    machine_.contexts.block(kFirst);
    machine_.manager.context_device(kDomain, kFirst, 0);
    machine_.manager.batch_end();
    while (!machine_.manager.run()) {
    }
    EXPECT_EQ(first_.recorder.mappings().size(), 0U);
    expect_mapped(second_, 0, 100);
    EXPECT_EQ(host().missing_leaves, 0U);
    EXPECT_EQ(host().pinned_bytes, 100 * kPageSize);
}

// The clock is looked at between a few maps, more and more of them as long as they are quick.
TEST_F(Retries, FewMapsTakeNoLookAtTheClock) {
    machine_.clock.step = 1;
    const auto looks = [&](unsigned first_page, unsigned pages) {
        for (unsigned i = 0; i < pages; ++i) {
            tables_.map(page(first_page + 2 * i), kRam);
        }
        const std::uint64_t before = machine_.clock.now;
        invalidate(page(first_page), 9);
        return machine_.clock.now - before;
    };
    const std::uint64_t for_one = looks(0, 1);
    EXPECT_EQ(looks(512, 8), for_one);
    EXPECT_LE(looks(1024, 200), for_one + 8);
}

class RetriesOfRunsInSlices : public RetriesInSlices {
  protected:
    RetriesOfRunsInSlices() : RetriesInSlices(true) {}
};

// Of large ones there are fewer between two looks: what they cost is the memory that they pin.
TEST_F(RetriesOfRunsInSlices, LargeMappingsAreMappedOneByOne) {
    const std::uint64_t large = vtd::level_span(2);
    for (unsigned i = 0; i < 80; ++i) {
        // Eight leaves in a row are one mapping.
        tables_.map(Iova(i * large), kRam + (i + i / 8 * 8) * large, Access::read_write, 2);
    }
    expect_slices(1, [&] { invalidate_pages_of_all(); });
    EXPECT_EQ(first_.recorder.mappings().size(), 10U);
    EXPECT_EQ(host().map.calls, 10U);
}

}  // namespace
}  // namespace umbra::testing
