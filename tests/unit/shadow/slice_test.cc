// SPDX-License-Identifier: GPL-2.0-or-later
//
// Work that is done in slices.
#include <gtest/gtest.h>

#include "tests/unit/shadow/one_device.h"

namespace umbra::testing {
namespace {

using telemetry::SyncTrigger;

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
    FakeDevice second(kSibling);
    machine.contexts.translate(kSibling, kDomain, tables.root());
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

}  // namespace
}  // namespace umbra::testing
