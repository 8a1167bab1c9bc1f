// SPDX-License-Identifier: GPL-2.0-or-later
//
// Devices that come, go and move; batches; budgets; slices; policies; counters.
#include <gtest/gtest.h>

#include <cerrno>

#include "plugin/shadow/range_list.h"
#include "plugin/vtd/interrupt_range.h"
#include "tests/support/guest_tables.h"
#include "tests/support/ledger.h"

namespace umbra::testing {
namespace {

using shadow::DmaMode;
using shadow::Options;
using shadow::Trouble;
using telemetry::SyncTrigger;

constexpr std::uint64_t kLarge = vtd::level_span(2);
constexpr DomainId kDomain{3};
constexpr DomainId kOther{4};
constexpr Gpa kRam = FakeMachine::kRam;
constexpr HostAddress kHost = FakeMachine::kHost;
const SourceId kDevice(0, 0x08);
const SourceId kSecond(0, 0x09);  // another function of the same device

std::uint64_t syncs(const FakeMachine& machine, SyncTrigger trigger) {
    return machine.manager.counters().sync.syncs[trigger];
}
std::uint64_t calls(const FakeDevice& device) {
    return device.recorder.map_calls() + device.recorder.unmap_calls();
}
HostAddress host_at(const FakeDevice& device, Iova iova) {
    return mapped(device.recorder, iova).host;
}

// ---- Devices ----

TEST(Devices, ModesComeInAnOrderThatLetsOthersFillTheContainer) {
    FakeMachine machine;
    GuestTables tables(machine);
    FakeDevice device(kDevice);
    machine.manager.add_device(device);
    tables.map_pages(Iova(0), kRam, 2);
    machine.contexts.translate(kDevice, kDomain, tables.root());
    machine.manager.context_device(kDomain, kDevice, 0);
    EXPECT_EQ(device.recorder.mappings().size(), 2U);
    machine.contexts.pass_through(kDevice);
    machine.manager.context_device(kDomain, kDevice, 0);
    machine.contexts.translate(kDevice, kDomain, tables.root());
    machine.manager.context_global();
    EXPECT_EQ(device.recorder.mappings().size(), 2U);
    machine.manager.translation_changed(false);

    EXPECT_EQ(device.modes,
              (std::vector<DmaMode>{DmaMode::blocked, DmaMode::translated, DmaMode::pass_through,
                                    DmaMode::translated, DmaMode::pass_through}));
    EXPECT_EQ(device.mapped_at_mode, std::vector<std::size_t>(5, 0));
    machine.manager.remove_device(device);
    EXPECT_EQ(device.modes.size(), 5U);
}

TEST(Devices, MovesBetweenDomainsAndLevels) {
    FakeMachine machine;
    GuestTables four(machine, 4, 0);
    GuestTables three(machine, 3, 128);
    FakeDevice device(kDevice);
    four.map(Iova(0x8000'0000'0000 - kPageSize), kRam);
    three.map(Iova(0x40'0000'0000 - kPageSize), kRam + kPageSize);
    machine.contexts.translate(kDevice, kDomain, four.root(), 4);
    machine.manager.add_device(device);
    EXPECT_EQ(host_at(device, Iova(0x8000'0000'0000 - kPageSize)), kHost);
    machine.contexts.translate(kDevice, kOther, three.root(), 3);
    machine.manager.context_domain(kOther);
    EXPECT_EQ(device.recorder.mappings().size(), 1U);
    EXPECT_EQ(host_at(device, Iova(0x40'0000'0000 - kPageSize)), kHost + kPageSize);
    EXPECT_EQ(device.modes.size(), 1U);
    machine.manager.remove_device(device);
}

TEST(Devices, FunctionMaskNamesFunctionsOfOneDevice) {
    FakeMachine machine;
    GuestTables tables(machine);
    FakeDevice first(kDevice);
    FakeDevice second(kSecond);
    FakeDevice stranger(SourceId(0, 0x10));
    for (FakeDevice* device : {&first, &second, &stranger}) {
        machine.manager.add_device(*device);
        machine.contexts.translate(device->source, kDomain, tables.root());
    }
    machine.manager.context_device(kDomain, kDevice, 0);
    EXPECT_EQ(first.modes.size(), 2U);
    EXPECT_EQ(second.modes.size(), 1U);
    machine.manager.context_device(kDomain, kDevice, 3);
    EXPECT_EQ(second.modes.size(), 2U);
    EXPECT_EQ(stranger.modes.size(), 1U);
    for (FakeDevice* device : {&first, &second, &stranger}) {
        machine.manager.remove_device(*device);
    }
}

TEST(Devices, WithoutAMapperGetModesAndNothingIsMirrored) {
    FakeMachine machine;
    GuestTables tables(machine);
    tables.map(Iova(0), kRam);
    FakeDevice device(kDevice);
    device.has_mapper = false;
    machine.contexts.translate(kDevice, kDomain, tables.root());
    machine.manager.add_device(device);
    machine.manager.iotlb_global();
    EXPECT_EQ(device.modes, std::vector<DmaMode>{DmaMode::translated});
    EXPECT_EQ(machine.manager.counters().sync.tables, 0U);
    machine.manager.remove_device(device);
}

TEST(Devices, LastOneOfADomainTakesTheMirrorAlong) {
    FakeMachine machine;
    GuestTables tables(machine);
    tables.map_pages(Iova(0), kRam, 600);
    FakeDevice device(kDevice);
    machine.contexts.translate(kDevice, kDomain, tables.root());
    machine.manager.add_device(device);
    EXPECT_EQ(machine.manager.counters().sync.tables, 5U);
    EXPECT_EQ(machine.manager.counters().sync.leaves, 600U);
    machine.contexts.block(kDevice);
    machine.manager.context_global();
    const auto& counters = machine.manager.counters();
    EXPECT_EQ(counters.sync.tables, 0U);
    EXPECT_EQ(counters.sync.leaves, 0U);
    EXPECT_EQ(counters.sync.mirror_bytes, 0U);
    EXPECT_EQ(counters.sync.leaves_peak, 600U);
    EXPECT_EQ(counters.host.pinned_bytes, 0U);
    machine.manager.remove_device(device);
}

// ---- Batches ----

class OneDevice : public ::testing::Test {
  public:
    ~OneDevice() override { machine_.manager.remove_device(device_); }

  protected:
    explicit OneDevice(const Options& options = {}) : machine_(options), tables_(machine_) {
        machine_.contexts.translate(kDevice, kDomain, tables_.root());
        machine_.manager.add_device(device_);
    }
    void invalidate(Iova iova, unsigned mask = 0) {
        machine_.manager.iotlb_pages(kDomain, iova, mask, false);
    }

    FakeMachine machine_;
    GuestTables tables_;
    FakeDevice device_{kDevice};
};

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
        tables_.map(Iova(2 * page * kPageSize), kRam);
    }
    machine_.manager.iotlb_domain(kDomain);
    machine_.manager.batch_begin();
    for (unsigned page = 0; page < 16; ++page) {
        // In no order that a table has them in.
        const Iova iova(2 * (page * 7 % 16) * kPageSize);
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
        invalidate(Iova(2 * page * kPageSize));
    }
    machine_.manager.barrier();
    EXPECT_EQ(machine_.manager.counters().sync.leaves, 0U);
    for (unsigned page = 0; page < shadow::RangeList::kCapacity + 1; ++page) {
        invalidate(Iova(2 * page * kPageSize));
    }
    machine_.manager.barrier();
    machine_.manager.batch_end();
    EXPECT_EQ(machine_.manager.counters().sync.leaves, 1U);
    EXPECT_EQ(syncs(machine_, SyncTrigger::page), 2U);
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

// ---- Host calls ----

TEST_F(OneDevice, ContiguousMapsAreOneCallAndComeApartWhenNeeded) {
    tables_.map_pages(Iova(0), kRam, 512);
    invalidate(Iova(0), 9);
    EXPECT_EQ(device_.recorder.map_calls(), 1U);

    tables_.unmap(Iova(10 * kPageSize));
    tables_.unmap(Iova(20 * kPageSize));
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.unmap_calls(), 1U);
    EXPECT_EQ(device_.recorder.map_calls(), 4U);
    EXPECT_EQ(device_.recorder.mappings().size(), 3U);
    const auto& host = machine_.manager.counters().host;
    EXPECT_EQ(host.splits, 1U);
    EXPECT_EQ(host.live_mappings, 3U);
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

class WithoutCoalescing : public OneDevice {
  protected:
    WithoutCoalescing() : OneDevice({.coalesce = false}) {}
};

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

// ---- What fails ----

TEST_F(OneDevice, RefusedUnmapIsToldAndTriedAgain) {
    tables_.map_pages(Iova(0), kRam, 4);
    invalidate(Iova(0), 2);
    bool refuse = true;
    device_.recorder.fail = [&](bool is_map, Iova, std::uint64_t) {
        return !is_map && refuse ? EBUSY : 0;
    };
    tables_.unmap_pages(Iova(0), 4);
    invalidate(Iova(0), 2);
    EXPECT_EQ(device_.recorder.mappings().size(), 1U);
    EXPECT_EQ(machine_.events.count(Trouble::unmap_refused), 1U);
    EXPECT_EQ(machine_.manager.verify().errors, 1U);
    const auto& host = machine_.manager.counters().host;
    EXPECT_EQ(host.pinned_bytes, 4 * kPageSize);

    // Something new in its place cannot be mapped; it is, as soon as the old has gone.
    tables_.map(Iova(0), kRam + kLarge);
    invalidate(Iova(0));
    EXPECT_EQ(host.missing_leaves, 1U);
    refuse = false;
    invalidate(Iova(0));
    EXPECT_EQ(host_at(device_, Iova(0)), kHost + kLarge);
    EXPECT_EQ(device_.recorder.mappings().size(), 1U);
    EXPECT_EQ(host.live_mappings, 1U);
    EXPECT_EQ(host.pinned_bytes, kPageSize);
    EXPECT_EQ(machine_.events.healings.size(), 2U);
    EXPECT_TRUE(machine_.manager.verify().clean());
    // The fixture unmaps the rest when this function has ended.
    device_.recorder.fail = nullptr;
}

class StopOnError : public OneDevice {
  protected:
    StopOnError() : OneDevice({.on_map_error = shadow::OnMapError::stop}) {}
};

TEST_F(StopOnError, StopsTheMachineOnce) {
    device_.recorder.fail = [](bool, Iova, std::uint64_t) { return ENOMEM; };
    tables_.map(Iova(0), kRam);
    tables_.map(Iova(0x10'0000), kRam);
    machine_.manager.iotlb_domain(kDomain);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(machine_.events.stops, 1U);
    ASSERT_FALSE(machine_.events.troubles.empty());
    EXPECT_STREQ(machine_.events.troubles[0].limit, "RLIMIT_MEMLOCK");
}

// A limit that is hit by tens of thousands of leaves must not make each sync try them all.
TEST_F(WithoutCoalescing, SyncsDoNotInsistOnALimit) {
    device_.recorder.entry_limit = 10;
    tables_.map_pages(Iova(0), kRam, 2000);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.map_calls(), 11U) << "one says that there is no more room";
    EXPECT_EQ(machine_.manager.counters().host.missing_leaves, 1990U);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.map_calls(), 12U);
    // What goes makes room, in the sync in which it goes.
    tables_.unmap_pages(Iova(0), 4);
    tables_.map_pages(Iova(0x4000'0000), kRam, 2);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.mappings().size(), 10U);
    EXPECT_EQ(device_.recorder.map_calls(), 12U + 4 + 1);
    EXPECT_EQ(host_at(device_, Iova(0x4000'0000)), kHost);
    tables_.map_pages(Iova(0), kRam, 4);
    tables_.unmap_pages(Iova(0x4000'0000), 2);
    // They still all come when there is room.
    device_.recorder.entry_limit = 10'000;
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.mappings().size(), 2000U);
}

// ---- Budgets ----

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
    FakeDevice second(kSecond);
    machine_.contexts.translate(kSecond, kOther, others.root());
    machine_.manager.add_device(second);
    EXPECT_EQ(machine_.manager.counters().sync.tables, 30U);
    machine_.manager.remove_device(second);
    EXPECT_EQ(machine_.manager.counters().sync.tables, 20U);
}

// ---- Where interrupts go ----

// A host refuses what touches its own interrupt range. What lies beside it must not go with it.
TEST_F(OneDevice, NeighboursOfTheInterruptRangeAreMapped) {
    constexpr Iova kFirst{vtd::kInterruptRangeFirst};
    constexpr Iova kAfter{vtd::kInterruptRangeLast + 1};
    device_.recorder.fail = [&](bool is_map, Iova iova, std::uint64_t bytes) {
        return is_map && iova < kAfter && iova + bytes > kFirst ? EINVAL : 0;
    };
    const Iova start = kFirst - 16 * kPageSize;
    tables_.map_pages(start, kRam, 16 + 256 + 16);
    machine_.manager.iotlb_domain(kDomain);
    for (unsigned page = 0; page < 16 + 256 + 16; ++page) {
        const bool beside = page < 16 || page >= 16 + 256;
        ASSERT_EQ(mapped(device_.recorder, start + page * kPageSize).access,
                  beside ? Access::read_write : Access::none)
            << page;
    }
    device_.recorder.fail = nullptr;
}

// ---- Slices ----

TEST(Slices, WorkStopsWhenTheTimeHasComeAndGoesOnLater) {
    FakeMachine machine({.coalesce = false, .slice_ns = 5'000'000});
    GuestTables tables(machine);
    FakeDevice device(kDevice);
    machine.contexts.translate(kDevice, kDomain, tables.root());
    machine.manager.add_device(device);
    for (unsigned table = 0; table < 100; ++table) {
        for (unsigned page = 0; page < 512; page += 8) {
            tables.map(Iova(table * kLarge + page * kPageSize), kRam);
        }
    }
    machine.clock.step = 1'000'000;
    machine.manager.batch_begin();
    machine.manager.iotlb_domain(kDomain);
    machine.manager.barrier();
    machine.manager.batch_end();
    EXPECT_FALSE(machine.manager.caught_up());
    unsigned slices = 2;
    std::size_t mapped_before = 0;
    while (!machine.manager.run()) {
        ++slices;
        ASSERT_GT(device.recorder.mappings().size(), mapped_before) << "no progress";
        mapped_before = device.recorder.mappings().size();
        ASSERT_LT(slices, 6400U);
    }
    EXPECT_GT(slices, 2U);
    EXPECT_EQ(device.recorder.mappings().size(), 6400U);
    EXPECT_EQ(syncs(machine, SyncTrigger::domain), 1U);
    EXPECT_EQ(machine.manager.counters().lock_hold.count(), slices + 1);
    const std::uint64_t compared = machine.manager.counters().sync.tables_compared;

    // A device that comes to the domain is served in slices too.
    FakeDevice second(kSecond);
    machine.contexts.translate(kSecond, kDomain, tables.root());
    machine.manager.batch_begin();
    machine.manager.add_device(second);
    slices = 1;
    while (!machine.manager.run()) {
        ASSERT_LT(++slices, 6400U);
    }
    EXPECT_GT(slices, 2U);
    EXPECT_EQ(second.recorder.mappings().size(), 6400U);
    machine.manager.batch_end();
    EXPECT_EQ(machine.manager.counters().sync.tables_compared, compared);
    machine.manager.remove_device(second);
    machine.manager.remove_device(device);
}

TEST(Slices, AllWaitsOfABatchHaveOneTogether) {
    FakeMachine machine({.slice_ns = 5'000'000});
    GuestTables tables(machine);
    FakeDevice device(kDevice);
    machine.contexts.translate(kDevice, kDomain, tables.root());
    machine.manager.add_device(device);
    machine.clock.step = 1'000'000;
    machine.manager.batch_begin();
    unsigned waits = 0;
    do {
        tables.map(Iova(waits * kPageSize), kRam);
        machine.manager.iotlb_domain(kDomain);
        machine.manager.barrier();
        EXPECT_EQ(device.recorder.mappings().size(), ++waits) << "each by itself is done in time";
    } while (machine.manager.caught_up() && waits < 10);
    EXPECT_GT(waits, 1U);
    EXPECT_LT(waits, 10U);
    machine.manager.batch_end();
    EXPECT_FALSE(machine.manager.caught_up());
    EXPECT_TRUE(machine.manager.run());
    EXPECT_TRUE(machine.manager.caught_up());

    // Whoever cannot wait insists.
    machine.manager.batch_begin();
    for (unsigned i = 0; i < 10; ++i) {
        machine.manager.iotlb_domain(kDomain);
        do {
            machine.manager.barrier();
        } while (!machine.manager.caught_up());
    }
    machine.manager.batch_end();
    machine.manager.remove_device(device);
}

TEST(Slices, ABatchHasTimeForASliceWhateverTakesIt) {
    FakeMachine machine({.slice_ns = 5'000'000});
    machine.clock.step = 1'000'000;
    for (unsigned batch = 0; batch < 3; ++batch) {
        machine.manager.batch_begin();
        unsigned looks = 0;
        while (machine.manager.has_time()) {
            ASSERT_LT(++looks, 10U);
        }
        EXPECT_EQ(looks, 4U);
        machine.manager.batch_end();
    }
    FakeMachine without({.slice_ns = 0});
    without.clock.step = 1'000'000'000;
    without.manager.batch_begin();
    EXPECT_TRUE(without.manager.has_time());
    without.manager.batch_end();
}

TEST(Slices, DomainThatDisappearsTakesItsWorkAlong) {
    FakeMachine machine;
    GuestTables tables(machine);
    FakeDevice device(kDevice);
    machine.contexts.translate(kDevice, kDomain, tables.root());
    machine.manager.add_device(device);
    machine.manager.batch_begin();
    machine.manager.iotlb_domain(kDomain);
    machine.contexts.block(kDevice);
    machine.manager.context_global();
    EXPECT_TRUE(machine.manager.run());
    machine.manager.batch_end();
    machine.manager.remove_device(device);
}

// ---- Guest memory that moves ----

TEST_F(OneDevice, RamThatMovesIsMappedAnew) {
    tables_.map_pages(Iova(0), kRam, 8);
    machine_.manager.iotlb_domain(kDomain);
    const std::uint64_t before = calls(device_);
    machine_.ram.set({{kRam, FakeMachine::kRamBytes, kHost, false}});
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(calls(device_), before) << "another generation of the same";

    machine_.ram.set({{kRam, 4 * kPageSize, kHost, false},
                      {kRam + 4 * kPageSize, kPageSize, kHost + kLarge, true}});
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(host_at(device_, Iova(3 * kPageSize)), kHost + 3 * kPageSize);
    EXPECT_EQ(mapped(device_.recorder, Iova(4 * kPageSize)),
              (FakeRamMap::Target{kHost + kLarge, Access::read}));
    EXPECT_EQ(mapped(device_.recorder, Iova(5 * kPageSize)), FakeRamMap::Target{});
    EXPECT_TRUE(machine_.manager.verify().clean());

    // At once, and without a look at guest tables.
    tables_.unmap(Iova(0));
    machine_.ram.set({{kRam, FakeMachine::kRamBytes, kHost + kLarge, false}});
    machine_.manager.ram_changed();
    EXPECT_EQ(host_at(device_, Iova(0)), kHost + kLarge);
    EXPECT_EQ(syncs(machine_, SyncTrigger::memory), 1U);
    EXPECT_EQ(machine_.manager.verify().pending, 1U);
}

TEST_F(OneDevice, TablesThatAreNoRamAnyMoreMapNothing) {
    tables_.map_pages(Iova(0), kRam, 8);
    machine_.manager.iotlb_domain(kDomain);
    machine_.memory.unplug(tables_.root() + kPageSize);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.mappings().size(), 0U);
    machine_.memory.unplug(std::nullopt);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.mappings().size(), 8U);
    machine_.memory.unplug(Gpa(0));
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.mappings().size(), 0U);
}

// ---- Counters ----

TEST_F(OneDevice, CountersOfUnitDomainAndDeviceAgree) {
    tables_.map_pages(Iova(0), kRam, 600);
    machine_.manager.iotlb_domain(kDomain);
    tables_.unmap_pages(Iova(0), 100);
    invalidate(Iova(0), 7);
    const auto& unit = machine_.manager.counters();
    EXPECT_EQ(unit.sync.leaves_mapped, 600U);
    EXPECT_EQ(unit.sync.leaves_unmapped, 100U);
    EXPECT_EQ(unit.sync.leaves, 500U);
    EXPECT_EQ(unit.host.map.calls, device_.recorder.map_calls());
    EXPECT_EQ(unit.host.unmap.calls, device_.recorder.unmap_calls());
    EXPECT_EQ(unit.host.map.bytes - unit.host.unmap.bytes, unit.host.pinned_bytes);
    unsigned domains = 0;
    machine_.manager.visit_domains([&](const shadow::Manager::DomainView& view) {
        ++domains;
        EXPECT_EQ(view.domain, kDomain);
        EXPECT_EQ(view.devices, 1U);
        EXPECT_EQ(view.counters.sync.leaves_mapped, unit.sync.leaves_mapped);
        EXPECT_EQ(view.counters.host.map.calls, unit.host.map.calls);
    });
    EXPECT_EQ(domains, 1U);
    machine_.manager.visit_devices([&](const shadow::Manager::DeviceView& view) {
        EXPECT_EQ(view.source, kDevice);
        EXPECT_EQ(view.counters.host.map.calls, unit.host.map.calls);
        EXPECT_EQ(view.counters.host.pinned_bytes, unit.host.pinned_bytes);
        EXPECT_EQ(view.counters.attaches, 1U);
    });
    machine_.manager.clear_counters();
    EXPECT_EQ(unit.sync.leaves_mapped, 0U);
    EXPECT_EQ(unit.host.map.calls, 0U);
    EXPECT_EQ(unit.sync.leaves, 500U);
    EXPECT_EQ(unit.host.pinned_bytes, 500 * kPageSize);
}

TEST_F(OneDevice, LatencyIsRecordedByTrigger) {
    machine_.clock.step = 10;
    invalidate(Iova(0));
    machine_.manager.iotlb_domain(kDomain);
    const auto& latency = machine_.manager.counters().latency;
    EXPECT_EQ(latency[SyncTrigger::page].total.count(), 1U);
    EXPECT_EQ(latency[SyncTrigger::domain].total.count(), 1U);
    EXPECT_GT(latency[SyncTrigger::domain].compare.max(), 0U);
}

TEST_F(OneDevice, TablesWithoutAPresentEntryAreSkipped) {
    tables_.map_pages(Iova(0), kRam, 4);
    machine_.manager.iotlb_domain(kDomain);
    tables_.unmap_pages(Iova(0), 4);
    machine_.manager.iotlb_domain(kDomain);
    const auto& sync = machine_.manager.counters().sync;
    const std::uint64_t skipped = sync.tables_skipped;
    // Not present, whatever else is in it.
    tables_.entry(Iova(0), 1) = 0xabcd'0000;
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(sync.tables_skipped, skipped + 1);
}

// ---- Verification ----

TEST_F(OneDevice, VerifyTellsPendingFromErrors) {
    tables_.map_pages(Iova(0), kRam, 8);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_TRUE(machine_.manager.verify().clean());
    EXPECT_EQ(machine_.manager.verify().pages_checked, 8U);

    tables_.unmap_pages(Iova(kPageSize), 2);
    shadow::Verification found = machine_.manager.verify();
    EXPECT_EQ(found.errors, 0U);
    ASSERT_EQ(found.pending, 1U);
    EXPECT_EQ(found.differences[0].expected.iova, Iova(kPageSize));
    EXPECT_EQ(found.differences[0].expected.bytes, 2 * kPageSize);
    EXPECT_EQ(found.differences[0].expected.access, Access::none);
    EXPECT_EQ(found.differences[0].actual.host, kHost + kPageSize);
    EXPECT_EQ(found.differences[0].to_string(),
              "domain 3, device 00:01.0, iova 0x1000-0x2fff: expected nothing, actual gpa "
              "0x100001000 host 0x7f0000001000 rw (pending)");

    // Behind the shadow's back.
    EXPECT_TRUE(device_.recorder.unmap(Iova(0), 8 * kPageSize).ok());
    found = machine_.manager.verify();
    EXPECT_GE(found.errors, 1U);
    EXPECT_EQ(found.differences[0].kind, shadow::Difference::Kind::error);
    EXPECT_EQ(found.differences[0].expected.host, kHost);
    EXPECT_EQ(found.differences[0].actual.access, Access::none);
}

TEST_F(OneDevice, VerifyShowsAFailedMap) {
    device_.recorder.fail = [](bool, Iova, std::uint64_t) { return ENOMEM; };
    tables_.map(Iova(0), kRam);
    machine_.manager.iotlb_domain(kDomain);
    const shadow::Verification found = machine_.manager.verify();
    EXPECT_EQ(found.errors, 1U);
    EXPECT_EQ(found.pending, 0U);
}

TEST(Verification, WorksFromTheShadowsOwnAccountIfTheMapperCannotTell) {
    // Forwards to a recorder and cannot be asked.
    class Silent final : public shadow::HostMapper {
      public:
        shadow::HostResult map(const shadow::HostMapping& mapping) override {
            return recorder.map(mapping);
        }
        shadow::HostResult unmap(Iova iova, std::uint64_t bytes) override {
            return recorder.unmap(iova, bytes);
        }
        host::Recorder recorder;
    };
    class Device final : public shadow::Device {
      public:
        [[nodiscard]] SourceId source_id() const override { return kDevice; }
        [[nodiscard]] shadow::HostMapper* mapper() override { return &silent; }
        void set_mode(DmaMode /*mode*/) override {}
        Silent silent;
    };
    FakeMachine machine;
    GuestTables tables(machine);
    Device device;
    machine.contexts.translate(kDevice, kDomain, tables.root());
    tables.map_pages(Iova(0), kRam, 8);
    machine.manager.add_device(device);
    EXPECT_TRUE(machine.manager.verify().clean());
    EXPECT_EQ(machine.manager.verify().pages_checked, 8U);
    device.silent.recorder.fail = [](bool, Iova, std::uint64_t) { return EBUSY; };
    tables.map(Iova(0x10'0000), kRam);
    tables.unmap(Iova(0));
    machine.manager.iotlb_domain(kDomain);
    EXPECT_GE(machine.manager.verify().errors, 2U);
    device.silent.recorder.fail = nullptr;
    machine.manager.iotlb_domain(kDomain);
    EXPECT_TRUE(machine.manager.verify().clean());
    machine.manager.remove_device(device);
}

}  // namespace
}  // namespace umbra::testing
