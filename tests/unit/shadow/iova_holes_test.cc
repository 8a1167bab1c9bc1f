// SPDX-License-Identifier: GPL-2.0-or-later
//
// Leaves that reach into IOVAs that the host cannot map: the interrupt range of every host, and the
// holes of one host.
#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <vector>

#include "plugin/shadow/iova_holes.h"
#include "tests/unit/shadow/one_device.h"

namespace umbra::testing {
namespace {

using shadow::Trouble;

constexpr Iova kWindow{0xfee00000};
constexpr Iova kAfterWindow{0xfef00000};
constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kHuge = vtd::level_span(3);

IovaRange stretch(Iova first, std::uint64_t bytes) {
    return {first, first + (bytes - 1)};
}

TEST(IovaHolesTest, LeaveTheUsableParts) {
    const std::array<IovaRange, 4> host = {
        stretch(Iova(0x200000), 0x100000), stretch(Iova(0xfedff000), 0x200000),
        stretch(Iova(0x280000), 0x100000), IovaRange{Iova(1ULL << 39), Iova(~std::uint64_t{0})}};
    const shadow::IovaHoles holes(host);
    std::vector<IovaRange> usable;
    const auto add = [&](IovaRange part) { usable.push_back(part); };
    holes.visit_usable(IovaRange::everything(), add);
    EXPECT_EQ(usable, (std::vector<IovaRange>{{Iova(0), Iova(0x1fffff)},
                                              {Iova(0x380000), Iova(0xfedfefff)},
                                              {Iova(0xfefff000), Iova((1ULL << 39) - 1)}}));
    usable.clear();
    holes.visit_usable(stretch(Iova(0x200000), 0x180000), add);
    EXPECT_TRUE(usable.empty());
    holes.visit_usable(stretch(Iova(0x1ff000), 0x2000), add);
    EXPECT_EQ(usable, (std::vector<IovaRange>{stretch(Iova(0x1ff000), 0x1000)}));

    EXPECT_FALSE(holes.overlaps(stretch(Iova(0x380000), 0x1000)));
    EXPECT_TRUE(holes.overlaps(stretch(Iova(0x37f000), 0x2000)));
    EXPECT_EQ(holes.host_hole_in(stretch(kWindow, kMiB)), std::nullopt);
    EXPECT_EQ(holes.host_hole_in(stretch(kWindow, 2 * kMiB)), stretch(kAfterWindow, 0xff000));
}

// One device, whose counters must equal what its recorder has.
class Holes : public OneDevice {
  protected:
    explicit Holes(std::vector<IovaRange> holes = {}) {
        if (!holes.empty()) {
            machine_.manager.remove_device(device_);
            device_.recorder.host_holes = std::move(holes);
            machine_.manager.add_device(device_);
        }
    }
    const telemetry::HostCounters& host() { return machine_.manager.counters().host; }
    void expect_true_account(std::vector<const FakeDevice*> devices = {}) {
        devices.push_back(&device_);
        std::uint64_t mappings = 0;
        std::uint64_t bytes = 0;
        for (const FakeDevice* device : devices) {
            mappings += device->recorder.mappings().size();
            device->recorder.mappings().visit(
                [&](const shadow::HostMapping& mapping) { bytes += mapping.bytes; });
            EXPECT_EQ(device->recorder.violations(), 0U);
        }
        EXPECT_EQ(host().live_mappings, mappings);
        EXPECT_EQ(host().pinned_bytes, bytes);
        EXPECT_TRUE(machine_.manager.verify().clean());
    }
    void expect_no_trouble() {
        EXPECT_EQ(host().missing_leaves, 0U);
        EXPECT_EQ(host().map.failures, 0U);
        EXPECT_TRUE(machine_.events.troubles.empty());
    }
    [[nodiscard]] HostAddress host_of(Iova iova) const { return host_at(device_, iova); }
    void expect_nothing(IovaRange range) {
        device_.recorder.mappings().visit(
            range.first, range.last - range.first + 1,
            [](const shadow::HostMapping& mapping) { ADD_FAILURE() << mapping.iova.value(); });
    }
};

TEST_F(Holes, LargeLeafAtTheInterruptRange) {
    tables_.map(kWindow, kRam, Access::read_write, 2);
    invalidate(kWindow, 9);
    expect_no_trouble();
    expect_nothing(stretch(kWindow, kMiB));
    EXPECT_EQ(device_.recorder.mappings().size(), 1U);
    EXPECT_EQ(host_of(kAfterWindow), kHost + kMiB);
    EXPECT_EQ(host_of(kAfterWindow + (kMiB - kPageSize)), kHost + (2 * kMiB - kPageSize));
    expect_true_account();

    tables_.unmap(kWindow, 2);
    invalidate(kWindow, 9);
    EXPECT_EQ(device_.recorder.mappings().size(), 0U);
    expect_true_account();
}

TEST_F(Holes, HugeLeafAroundTheInterruptRange) {
    constexpr Iova kFirst{0xc0000000};
    tables_.map(kFirst, kRam, Access::read_write, 3);
    machine_.manager.iotlb_domain(kDomain);
    expect_no_trouble();
    expect_nothing(stretch(kWindow, kMiB));
    EXPECT_EQ(device_.recorder.mappings().size(), 2U);
    EXPECT_EQ(host_of(kFirst), kHost);
    EXPECT_EQ(host_of(kWindow - kPageSize), kHost + (kWindow - kFirst - kPageSize));
    EXPECT_EQ(host_of(kAfterWindow), kHost + (kAfterWindow - kFirst));
    EXPECT_EQ(host_of(kFirst + (kHuge - kPageSize)), kHost + (kHuge - kPageSize));
    expect_true_account();

    // RAM that moves takes all pieces along.
    machine_.ram.set({{kRam, FakeMachine::kRamBytes, kHost + kHuge, false}});
    machine_.manager.ram_changed();
    EXPECT_EQ(host_of(kAfterWindow), kHost + kHuge + (kAfterWindow - kFirst));
    expect_true_account();

    tables_.unmap(kFirst, 3);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.mappings().size(), 0U);
    expect_true_account();
}

TEST_F(Holes, LeafThatRamAndTheInterruptRangeCut) {
    machine_.ram.set({{kRam, kMiB + kMiB / 2, kHost, false},
                      {kRam + (kMiB + kMiB / 2), kMiB / 4, kHost + 8 * kMiB, false}});
    tables_.map(kWindow, kRam, Access::read_write, 2);
    invalidate(kWindow, 9);
    EXPECT_EQ(device_.recorder.mappings().size(), 2U);
    EXPECT_EQ(host_of(kAfterWindow + kMiB / 2), kHost + 8 * kMiB);
    expect_true_account();
    tables_.unmap(kWindow, 2);
    invalidate(kWindow, 9);
    expect_true_account();
}

// The guest changes the size of its leaves, and unmaps in the middle of joined ones.
TEST_F(Holes, ResizesAndSplitsKeepTheAccount) {
    tables_.map(kWindow, kRam, Access::read_write, 2);
    invalidate(kWindow, 9);
    const Gpa table = tables_.allocate();
    for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
        *machine_.memory.entry(table, slot) = GuestTables::leaf(kRam + slot * kPageSize, 1);
    }
    tables_.entry(kWindow, 2) = GuestTables::table(table);
    invalidate(kWindow, 9);
    EXPECT_EQ(host_of(kAfterWindow), kHost + kMiB);
    expect_true_account();

    for (const Iova page : {kWindow + 7 * kPageSize, kAfterWindow - kPageSize, kAfterWindow,
                            kAfterWindow + 9 * kPageSize}) {
        tables_.unmap(page);
        invalidate(page);
        expect_nothing(stretch(kWindow, kMiB));
        EXPECT_EQ(host_of(page), HostAddress());
        expect_true_account();
    }
    EXPECT_EQ(host_of(kAfterWindow + 10 * kPageSize), kHost + kMiB + 10 * kPageSize);

    tables_.map_pages(kWindow, kRam, kEntriesPerTable);
    invalidate(kWindow, 9);
    expect_true_account();
    tables_.entry(kWindow, 2) = GuestTables::leaf(kRam, 2);
    invalidate(kWindow, 9);
    EXPECT_EQ(host_of(kAfterWindow), kHost + kMiB);
    expect_no_trouble();
    expect_true_account();
    machine_.contexts.block(kDevice);
    machine_.manager.context_device(kDomain, kDevice, 0);
    EXPECT_EQ(device_.recorder.mappings().size(), 0U);
    expect_true_account();
}

TEST_F(Holes, PagesOfTheInterruptRangeNeedNoCall) {
    tables_.map_pages(kWindow, kRam, 256);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.map_calls(), 0U);
    expect_no_trouble();
    expect_true_account();
    tables_.unmap_pages(kWindow, 256);
    machine_.manager.iotlb_domain(kDomain);
    expect_true_account();
}

TEST_F(Holes, RefusedPieceTakesTheOthersAlongUntilThereIsRoom) {
    device_.recorder.entry_limit = 1;
    tables_.map(Iova(0xc0000000), kRam, Access::read_write, 3);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.mappings().size(), 0U);
    EXPECT_EQ(host().missing_leaves, 1U);
    device_.recorder.entry_limit = 2;
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.mappings().size(), 2U);
    EXPECT_EQ(host().missing_leaves, 0U);
    expect_true_account();
}

TEST_F(Holes, PiecesWhoseUnmapIsRefusedGoLater) {
    tables_.map(Iova(0xc0000000), kRam, Access::read_write, 3);
    machine_.manager.iotlb_domain(kDomain);
    bool refuse = true;
    device_.recorder.fail = [&](bool is_map, Iova, std::uint64_t) {
        return !is_map && refuse ? EBUSY : 0;
    };
    tables_.unmap(Iova(0xc0000000), 3);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(host().live_mappings, 2U);
    EXPECT_EQ(host().pinned_bytes, kHuge - kMiB);
    refuse = false;
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.mappings().size(), 0U);
    expect_true_account();
}

// A host hole in the middle of the first large leaf, one at its end, and one of whole leaves.
class HostHoles : public Holes {
  protected:
    HostHoles()
        : Holes({stretch(Iova(kMiB / 2), kMiB / 4), stretch(Iova(2 * kMiB - kPageSize), kPageSize),
                 stretch(Iova(4 * kMiB), 4 * kMiB)}) {}
};

TEST_F(HostHoles, AreToldOnceAndTheRestIsMapped) {
    tables_.map(Iova(0), kRam, Access::read_write, 2);
    tables_.map_pages(Iova(4 * kMiB), kRam + 4 * kMiB, 3);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(device_.recorder.mappings().size(), 2U);
    EXPECT_EQ(host_of(Iova(0)), kHost);
    EXPECT_EQ(host_of(Iova(kMiB * 3 / 4)), kHost + kMiB * 3 / 4);
    expect_true_account();
    EXPECT_EQ(host().map.failures, 0U);
    EXPECT_EQ(host().missing_leaves, 0U);
    EXPECT_EQ(host().iova_holes, 4U);
    ASSERT_EQ(machine_.events.count(Trouble::iova_hole), 1U);
    EXPECT_EQ(machine_.events.troubles.size(), 1U);
    EXPECT_EQ(machine_.events.troubles[0].range, stretch(Iova(kMiB / 2), kMiB / 4));

    tables_.unmap(Iova(0), 2);
    tables_.unmap_pages(Iova(4 * kMiB), 3);
    machine_.manager.iotlb_domain(kDomain);
    expect_true_account();
    EXPECT_EQ(machine_.events.healings, std::vector{Trouble::iova_hole});
}

// What one host cannot map, another one in the same domain can.
TEST_F(HostHoles, AreThoseOfOneDevice) {
    const SourceId source(1, 0);
    FakeDevice other(source);
    machine_.contexts.translate(source, kDomain, tables_.root());
    tables_.map_pages(Iova(0), kRam, 3 * kEntriesPerTable);
    machine_.manager.iotlb_domain(kDomain);
    machine_.manager.add_device(other);
    expect_true_account({&other});
    EXPECT_EQ(host_at(other, Iova(kMiB / 2)), kHost + kMiB / 2);
    EXPECT_EQ(host_of(Iova(kMiB / 2)), HostAddress());

    tables_.map_pages(Iova(16 * kMiB), kRam, 2 * kEntriesPerTable);
    tables_.unmap_pages(Iova(0), 3 * kEntriesPerTable);
    tables_.map(Iova(0), kRam, Access::read_write, 2);
    machine_.manager.iotlb_domain(kDomain);
    expect_true_account({&other});
    machine_.manager.remove_device(other);
    expect_true_account();
    EXPECT_EQ(other.recorder.mappings().size(), 0U);
}

}  // namespace
}  // namespace umbra::testing
