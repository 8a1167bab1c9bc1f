// SPDX-License-Identifier: GPL-2.0-or-later
//
// What QEMU's own intel-iommu gets wrong with a listener that follows VFIO type1v2's rules, one
// test for each, done right.
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/support/guest_tables.h"

namespace umbra::testing {
namespace {

using shadow::DmaMode;
using shadow::Trouble;

constexpr std::uint64_t kLarge = vtd::level_span(2);
constexpr DomainId kDomain{3};
constexpr DomainId kOther{4};
constexpr Gpa kRam = FakeMachine::kRam;
constexpr HostAddress kHost = FakeMachine::kHost;
const SourceId kDevice(0, 0x08);
const SourceId kSecond(0, 0x10);

FakeRamMap::Target at(std::uint64_t offset, Access access = Access::read_write) {
    return {kHost + offset, access};
}
constexpr FakeRamMap::Target kNothing{};

class PeerCases : public ::testing::Test {
  public:
    ~PeerCases() override {
        EXPECT_EQ(device_.recorder.violations(), 0U);
        machine_.manager.remove_device(device_);
        EXPECT_EQ(device_.recorder.mappings().size(), 0U);
    }

  protected:
    PeerCases() {
        machine_.contexts.translate(kDevice, kDomain, tables_.root());
        machine_.manager.add_device(device_);
    }
    void invalidate(Iova iova, unsigned mask = 0, DomainId domain = kDomain) {
        machine_.manager.iotlb_pages(domain, iova, mask, false);
    }

    FakeMachine machine_;
    GuestTables tables_{machine_};
    FakeDevice device_{kDevice};
};

// 1. The old 2 MiB mapping stays and the new ones are refused.
TEST_F(PeerCases, LargeLeafReplacedBySmallOnes) {
    tables_.map(Iova(0), kRam, Access::read_write, 2);
    invalidate(Iova(0), 9);
    ASSERT_EQ(mapped(device_.recorder, Iova(0x1f'f000)), at(0x1f'f000));

    tables_.entry(Iova(0), 2) = 0;
    for (unsigned page = 0; page < 512; page += 2) {
        tables_.map(Iova(page * kPageSize), kRam + (kLarge + page * kPageSize));
    }
    invalidate(Iova(0), 9);
    for (unsigned page = 0; page < 512; ++page) {
        const std::uint64_t offset = page * kPageSize;
        ASSERT_EQ(mapped(device_.recorder, Iova(offset)),
                  page % 2 == 0 ? at(kLarge + offset) : kNothing)
            << page;
    }
}

TEST_F(PeerCases, LargeLeafReplacedBySmallOnesWithTheSameTranslationIsNotTouched) {
    tables_.map(Iova(0), kRam, Access::read_write, 2);
    invalidate(Iova(0), 9);
    const std::uint64_t calls = device_.recorder.map_calls() + device_.recorder.unmap_calls();

    tables_.entry(Iova(0), 2) = 0;
    tables_.map_pages(Iova(0), kRam, 512);
    invalidate(Iova(0), 9);
    EXPECT_EQ(device_.recorder.map_calls() + device_.recorder.unmap_calls(), calls);

    // On the host it is one mapping still, so that taking a page out of it splits it.
    tables_.unmap(Iova(100 * kPageSize));
    invalidate(Iova(100 * kPageSize));
    EXPECT_EQ(machine_.manager.counters().host.splits, 1U);
    EXPECT_EQ(mapped(device_.recorder, Iova(99 * kPageSize)), at(99 * kPageSize));
    EXPECT_EQ(mapped(device_.recorder, Iova(100 * kPageSize)), kNothing);
    EXPECT_EQ(mapped(device_.recorder, Iova(101 * kPageSize)), at(101 * kPageSize));

    // And back to one leaf.
    tables_.map(Iova(100 * kPageSize), kRam + 100 * kPageSize);
    invalidate(Iova(100 * kPageSize));
    const std::uint64_t before = device_.recorder.map_calls() + device_.recorder.unmap_calls();
    tables_.map(Iova(0), kRam, Access::read_write, 2);
    invalidate(Iova(0), 9);
    EXPECT_EQ(device_.recorder.map_calls() + device_.recorder.unmap_calls(), before);
    tables_.entry(Iova(0), 2) = 0;
    invalidate(Iova(0), 9);
    EXPECT_EQ(device_.recorder.mappings().size(), 0U);
}

// 2. The live mappings of every other domain are dropped and made again.
TEST_F(PeerCases, ContextInvalidationOfOneDomainLeavesOthersAlone) {
    FakeDevice second(kSecond);
    GuestTables tables(machine_, 4, 128);
    machine_.contexts.translate(kSecond, kOther, tables.root());
    machine_.manager.add_device(second);
    tables_.map_pages(Iova(0), kRam, 3);
    tables.map_pages(Iova(0), kRam + kLarge, 3);
    machine_.manager.iotlb_global();
    ASSERT_EQ(mapped(second.recorder, Iova(0)), at(kLarge));

    const std::uint64_t calls = second.recorder.map_calls() + second.recorder.unmap_calls();
    machine_.contexts.block(kDevice);
    machine_.manager.context_domain(kDomain);
    EXPECT_EQ(device_.recorder.mappings().size(), 0U);
    EXPECT_EQ(second.recorder.map_calls() + second.recorder.unmap_calls(), calls);

    // Nor does the invalidation of its IOTLB entries look at another domain's tables.
    const std::uint64_t compared = machine_.manager.counters().sync.tables_compared;
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(machine_.manager.counters().sync.tables_compared, compared);
    machine_.manager.remove_device(second);
}

// 3. Live mappings are dropped and made again although nothing changed.
TEST_F(PeerCases, GlobalContextInvalidationWithoutAChangeDoesNothing) {
    tables_.map_pages(Iova(0), kRam, 3);
    machine_.manager.iotlb_global();
    const std::uint64_t calls = device_.recorder.map_calls() + device_.recorder.unmap_calls();
    machine_.manager.context_global();
    machine_.manager.context_device(kDomain, kDevice, 0);
    machine_.manager.translation_changed(true);
    EXPECT_EQ(device_.recorder.map_calls() + device_.recorder.unmap_calls(), calls);
    EXPECT_EQ(device_.modes, (std::vector<DmaMode>{DmaMode::translated}));
}

// 4. The old mapping survives the page-selective invalidation.
TEST_F(PeerCases, EntryThatGetsAReservedBitIsUnmapped) {
    tables_.map_pages(Iova(0), kRam, 3);
    invalidate(Iova(0), 2);
    tables_.entry(Iova(kPageSize), 1) |= vtd::spec::SecondStageEntry::All::kReserved;
    invalidate(Iova(kPageSize));
    EXPECT_EQ(mapped(device_.recorder, Iova(0)), at(0));
    EXPECT_EQ(mapped(device_.recorder, Iova(kPageSize)), kNothing);
    EXPECT_EQ(mapped(device_.recorder, Iova(2 * kPageSize)), at(2 * kPageSize));
    EXPECT_EQ(machine_.manager.counters().sync.invalid_entries, 1U);
}

// 5. QEMU is held for good.
TEST_F(PeerCases, TablesThatReferToThemselves) {
    for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
        *machine_.memory.entry(tables_.root(), slot) = GuestTables::table(tables_.root());
    }
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.mappings().size(), 0U);
    EXPECT_EQ(machine_.manager.counters().sync.loops, 512U);
    EXPECT_EQ(machine_.events.count(Trouble::table_loop), 1U);

    // The guest comes to its senses.
    for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
        *machine_.memory.entry(tables_.root(), slot) = 0;
    }
    tables_.map(Iova(0), kRam);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(mapped(device_.recorder, Iova(0)), at(0));
    EXPECT_EQ(machine_.events.healings, (std::vector<Trouble>{Trouble::table_loop}));
}

// 6. It is remembered as done and never tried again; nobody is told.
TEST_F(PeerCases, MapThatFailedIsToldAndTriedAgain) {
    device_.recorder.entry_limit = 2;
    tables_.map(Iova(0), kRam);
    tables_.map(Iova(0x10'0000), kRam);
    tables_.map(Iova(0x20'0000), kRam);
    tables_.map(Iova(0x30'0000), kRam);
    machine_.manager.iotlb_domain(kDomain);
    const auto& host = machine_.manager.counters().host;
    EXPECT_EQ(device_.recorder.mappings().size(), 2U);
    EXPECT_EQ(host.missing_leaves, 2U);
    EXPECT_GE(host.map.failures, 1U);
    ASSERT_EQ(machine_.events.troubles.size(), 1U) << "once a domain";
    EXPECT_EQ(machine_.events.troubles[0].error, ENOSPC);
    EXPECT_EQ(machine_.events.troubles[0].domain, kDomain);
    EXPECT_STREQ(machine_.events.troubles[0].limit, "vfio_iommu_type1.dma_entry_limit");
    EXPECT_EQ(machine_.events.stops, 0U);

    // Room for one more.
    tables_.unmap(Iova(0));
    invalidate(Iova(0));
    EXPECT_EQ(mapped(device_.recorder, Iova(0x20'0000)), at(0));
    EXPECT_TRUE(machine_.events.healings.empty());

    // A sync that touches the missing one finds it.
    device_.recorder.entry_limit = 100;
    invalidate(Iova(0x30'0000));
    EXPECT_EQ(mapped(device_.recorder, Iova(0x30'0000)), at(0));
    EXPECT_EQ(host.missing_leaves, 0U);
    EXPECT_GE(host.map.retries, 2U);
    EXPECT_EQ(machine_.events.healings, (std::vector<Trouble>{Trouble::map_failed}));
}

// 7. A new listener gets what the tables say now, and what was cleared but not yet invalidated is
// forgotten while the host still has it.
TEST_F(PeerCases, ReplayFollowsWhatWasInvalidatedNotWhatIsInTheTables) {
    tables_.map_pages(Iova(0), kRam, 2);
    invalidate(Iova(0), 1);
    tables_.unmap(Iova(0));
    tables_.map(Iova(5 * kPageSize), kRam);

    device_.recorder.clear();
    machine_.manager.replay(device_);
    EXPECT_EQ(mapped(device_.recorder, Iova(0)), at(0));
    EXPECT_EQ(mapped(device_.recorder, Iova(kPageSize)), at(kPageSize));
    EXPECT_EQ(mapped(device_.recorder, Iova(5 * kPageSize)), kNothing);

    invalidate(Iova(0));
    EXPECT_EQ(mapped(device_.recorder, Iova(0)), kNothing);
    EXPECT_EQ(mapped(device_.recorder, Iova(kPageSize)), at(kPageSize));
}

TEST_F(PeerCases, DeviceThatLeavesTakesAlongWhatWasNotInvalidatedYet) {
    tables_.map_pages(Iova(0), kRam, 2);
    invalidate(Iova(0), 1);
    tables_.unmap_pages(Iova(0), 2);
    machine_.contexts.block(kDevice);
    machine_.manager.context_device(kDomain, kDevice, 0);
    EXPECT_EQ(device_.recorder.mappings().size(), 0U);
}

// 8. N devices cost N walks.
TEST_F(PeerCases, DevicesOfOneDomainShareOneWalk) {
    tables_.map_pages(Iova(0), kRam, 300);
    machine_.manager.iotlb_domain(kDomain);
    const auto& sync = machine_.manager.counters().sync;
    std::uint64_t before = sync.tables_compared;
    machine_.manager.iotlb_domain(kDomain);
    const std::uint64_t alone = sync.tables_compared - before;

    std::vector<std::unique_ptr<FakeDevice>> devices;
    for (unsigned i = 0; i < 15; ++i) {
        const SourceId source(1, static_cast<std::uint8_t>(i));
        machine_.contexts.translate(source, kDomain, tables_.root());
        devices.push_back(std::make_unique<FakeDevice>(source));
        machine_.manager.add_device(*devices.back());
        ASSERT_EQ(mapped(devices.back()->recorder, Iova(299 * kPageSize)), at(299 * kPageSize));
    }
    EXPECT_EQ(sync.tables, 4U);
    before = sync.tables_compared;
    tables_.map(Iova(300 * kPageSize), kRam);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(sync.tables_compared - before, alone);
    for (const auto& device : devices) {
        EXPECT_EQ(mapped(device->recorder, Iova(300 * kPageSize)), at(0));
        machine_.manager.remove_device(*device);
        EXPECT_EQ(device->recorder.mappings().size(), 0U);
    }
}

// 9. It is dropped whole.
TEST_F(PeerCases, LargeLeafAcrossTheEndOfRam) {
    machine_.ram.set({{kRam, kLarge / 2, kHost, false},
                      {kRam + kLarge / 2, kLarge / 4, kHost + 8 * kLarge, true}});
    tables_.map(Iova(0), kRam, Access::read_write, 2);
    invalidate(Iova(0), 9);
    EXPECT_EQ(mapped(device_.recorder, Iova(kLarge / 2 - kPageSize)), at(kLarge / 2 - kPageSize));
    EXPECT_EQ(mapped(device_.recorder, Iova(kLarge / 2)), at(8 * kLarge, Access::read));
    EXPECT_EQ(mapped(device_.recorder, Iova(kLarge * 3 / 4)), kNothing);
    EXPECT_EQ(machine_.manager.counters().sync.not_ram, 1U);
    EXPECT_EQ(machine_.manager.counters().host.live_mappings, 2U);
    ASSERT_EQ(machine_.events.count(Trouble::not_ram), 1U);

    tables_.entry(Iova(0), 2) = 0;
    invalidate(Iova(0), 9);
    EXPECT_EQ(device_.recorder.mappings().size(), 0U);
    EXPECT_EQ(machine_.events.healings, (std::vector<Trouble>{Trouble::not_ram}));
}

TEST_F(PeerCases, PieceOfALeafThatCannotBeMappedTakesTheOthersAlong) {
    machine_.ram.set({{kRam, kLarge / 2, kHost, false},
                      {kRam + kLarge / 2, kLarge / 2, kHost + 8 * kLarge, false}});
    device_.recorder.entry_limit = 1;
    tables_.map(Iova(0), kRam, Access::read_write, 2);
    invalidate(Iova(0), 9);
    EXPECT_EQ(device_.recorder.mappings().size(), 0U);
    EXPECT_EQ(machine_.manager.counters().host.missing_leaves, 1U);
    device_.recorder.entry_limit = 2;
    invalidate(Iova(0), 9);
    EXPECT_EQ(device_.recorder.mappings().size(), 2U);
    EXPECT_EQ(machine_.manager.counters().host.missing_leaves, 0U);
}

}  // namespace
}  // namespace umbra::testing
