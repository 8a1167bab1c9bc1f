// SPDX-License-Identifier: GPL-2.0-or-later
//
// Guest RAM that moves in the host, or goes.
#include <gtest/gtest.h>

#include "tests/unit/shadow/one_device.h"

namespace umbra::testing {
namespace {

using telemetry::SyncTrigger;

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

}  // namespace
}  // namespace umbra::testing
