// SPDX-License-Identifier: GPL-2.0-or-later
//
// Devices that come, go and move from one guest domain to another.
#include <gtest/gtest.h>

#include <vector>

#include "tests/unit/shadow/one_device.h"

namespace umbra::testing {
namespace {

using shadow::DmaMode;

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
    FakeDevice second(kSibling);
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

}  // namespace
}  // namespace umbra::testing
