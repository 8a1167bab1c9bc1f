// SPDX-License-Identifier: GPL-2.0-or-later
//
// on-map-error=stop, as the C side drives it: what the guest waits for completes when the machine
// has stopped, and not when it has been asked to.
#include <gtest/gtest.h>

#include "tests/unit/bridge/bridge_machine.h"

namespace umbra::testing {
namespace {

class StopOnMapError : public ::testing::Test {
  protected:
    StopOnMapError() : machine_(/*stop_on_map_error=*/true) { machine_.translate(); }

    BridgeMachine machine_;
};

TEST_F(StopOnMapError, WaitCompletesWhenTheMachineHasStopped) {
    machine_.map(0, 1);
    EXPECT_EQ(machine_.status(), 1u);
    machine_.refuses = true;
    machine_.map(1, 2);
    EXPECT_EQ(machine_.stops, 1u);
    EXPECT_EQ(machine_.status(), 1u);
    EXPECT_TRUE(umbra_unit_machine_stopping(machine_.unit));
    // However often it is asked to go on, and whatever the guest does meanwhile.
    EXPECT_TRUE(umbra_unit_work(machine_.unit));
    machine_.map(2, 3);
    EXPECT_TRUE(umbra_unit_work(machine_.unit));
    EXPECT_EQ(machine_.status(), 1u);

    machine_.runs = false;
    umbra_unit_machine_stopped(machine_.unit);
    EXPECT_FALSE(umbra_unit_work(machine_.unit));
    EXPECT_EQ(machine_.status(), 3u);
    EXPECT_EQ(machine_.stops, 1u);
}

TEST_F(StopOnMapError, EachTimeItGoesOnItMayStopAgain) {
    machine_.refuses = true;
    machine_.map(0, 1);
    umbra_unit_machine_stopped(machine_.unit);
    static_cast<void>(umbra_unit_work(machine_.unit));
    umbra_unit_machine_goes_on(machine_.unit);
    EXPECT_EQ(machine_.stops, 2u);
    EXPECT_TRUE(umbra_unit_machine_stopping(machine_.unit));
    umbra_unit_machine_stopped(machine_.unit);
    machine_.refuses = false;
    umbra_unit_machine_goes_on(machine_.unit);
    EXPECT_EQ(machine_.stops, 2u);
    EXPECT_EQ(machine_.mapped, 1u);
    EXPECT_FALSE(umbra_unit_has_work(machine_.unit));
}

TEST_F(StopOnMapError, MachineThatStandsStillWaitsForNoStop) {
    machine_.refuses = true;
    machine_.runs = false;
    machine_.map(0, 1);
    EXPECT_EQ(machine_.status(), 1u);
    EXPECT_FALSE(umbra_unit_machine_stopping(machine_.unit));
}

TEST_F(StopOnMapError, CommandByRegisterCompletesWhenTheMachineHasStopped) {
    umbra_unit_mmio_write(machine_.unit, 0x18, 1u << 26, 4);
    machine_.set_leaf(0);
    machine_.refuses = true;
    umbra_unit_mmio_write(machine_.unit, 0x18, 1u << 26 | 1u << 31, 4);
    EXPECT_EQ(umbra_unit_mmio_read(machine_.unit, 0x1c, 4) >> 31, 0u);
    umbra_unit_machine_stopped(machine_.unit);
    EXPECT_FALSE(umbra_unit_work(machine_.unit));
    EXPECT_EQ(umbra_unit_mmio_read(machine_.unit, 0x1c, 4) >> 31, 1u);
}

TEST_F(StopOnMapError, ResetDoesNotWaitForIt) {
    machine_.refuses = true;
    machine_.map(0, 1);
    ASSERT_TRUE(umbra_unit_machine_stopping(machine_.unit));
    umbra_unit_reset(machine_.unit);
    EXPECT_FALSE(umbra_unit_machine_stopping(machine_.unit));
    EXPECT_FALSE(umbra_unit_has_work(machine_.unit));
}

}  // namespace
}  // namespace umbra::testing
