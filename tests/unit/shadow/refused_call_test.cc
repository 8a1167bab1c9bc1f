// SPDX-License-Identifier: GPL-2.0-or-later
//
// Host calls that are refused, and the policies for that.
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/unit/shadow/one_device.h"

namespace umbra::testing {
namespace {

using shadow::Trouble;

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

class StopWithoutCoalescing : public OneDevice {
  protected:
    StopWithoutCoalescing()
        : OneDevice({.coalesce = false, .on_map_error = shadow::OnMapError::stop}) {}
};

// Each cont finds the host full, whatever is missing.
TEST_F(StopWithoutCoalescing, GoingOnCostsOneCallWhileTheHostIsFull) {
    device_.recorder.entry_limit = 666;
    tables_.map_pages(Iova(0), kRam, 2000);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(machine_.events.stops, 1U);
    const std::size_t calls = device_.recorder.map_calls();
    for (unsigned i = 1; i <= 100; ++i) {
        machine_.manager.machine_goes_on();
        EXPECT_TRUE(machine_.manager.holds_machine());
        EXPECT_FALSE(machine_.manager.may_complete());
        EXPECT_TRUE(machine_.manager.caught_up());
        EXPECT_EQ(machine_.events.stops, 1U + i);
        EXPECT_EQ(device_.recorder.map_calls(), calls + i);
    }
    device_.recorder.entry_limit = 1500;
    machine_.manager.machine_goes_on();
    EXPECT_TRUE(machine_.manager.holds_machine());
    EXPECT_EQ(device_.recorder.mappings().size(), 1500U);
    device_.recorder.entry_limit = 10'000;
    machine_.manager.machine_goes_on();
    EXPECT_FALSE(machine_.manager.holds_machine());
    EXPECT_EQ(device_.recorder.mappings().size(), 2000U);
}

TEST_F(StopOnError, DomainThatGoesHoldsNothing) {
    device_.recorder.fail = [](bool is_map, Iova, std::uint64_t) { return is_map ? ENOMEM : 0; };
    tables_.map(Iova(0), kRam);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_TRUE(machine_.manager.holds_machine());
    machine_.manager.remove_device(device_);
    EXPECT_FALSE(machine_.manager.holds_machine());
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

}  // namespace
}  // namespace umbra::testing
