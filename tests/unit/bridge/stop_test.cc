// SPDX-License-Identifier: GPL-2.0-or-later
//
// on-map-error=stop, as the C side drives it: what the guest waits for completes when the mapping
// is there, however often the machine stops and is to go on.
#include <gtest/gtest.h>

#include "tests/unit/bridge/bridge_machine.h"

namespace umbra::testing {
namespace {

class StopOnMapError : public ::testing::Test {
  protected:
    StopOnMapError() : machine_(/*stop_on_map_error=*/true) { machine_.translate(); }

    BridgeMachine machine_;
};

TEST_F(StopOnMapError, WaitCompletesWhenTheMappingIsThere) {
    machine_.map(0, 1);
    EXPECT_EQ(machine_.status(), 1u);
    machine_.refuses = true;
    machine_.map(1, 2);
    EXPECT_EQ(machine_.stops, 1u);
    EXPECT_EQ(machine_.status(), 1u);
    EXPECT_TRUE(umbra_unit_holds_machine(machine_.unit));
    // Nothing can be done, whatever the guest does meanwhile.
    EXPECT_FALSE(umbra_unit_has_work(machine_.unit));
    EXPECT_FALSE(umbra_unit_work(machine_.unit));
    machine_.map(2, 3);
    EXPECT_FALSE(umbra_unit_work(machine_.unit));
    EXPECT_EQ(machine_.status(), 1u);

    for (unsigned i = 2; i < 10; ++i) {
        umbra_unit_machine_goes_on(machine_.unit);
        EXPECT_TRUE(umbra_unit_holds_machine(machine_.unit));
        EXPECT_EQ(machine_.stops, i);
        EXPECT_FALSE(umbra_unit_work(machine_.unit));
        EXPECT_EQ(machine_.status(), 1u);
    }
    machine_.refuses = false;
    umbra_unit_machine_goes_on(machine_.unit);
    EXPECT_FALSE(umbra_unit_holds_machine(machine_.unit));
    EXPECT_EQ(machine_.stops, 9u);
    EXPECT_TRUE(umbra_unit_has_work(machine_.unit));
    EXPECT_FALSE(umbra_unit_work(machine_.unit));
    EXPECT_EQ(machine_.status(), 3u);
    EXPECT_EQ(machine_.mapped, 3u);
}

TEST_F(StopOnMapError, OperatorLetsTheGuestGoOnWithout) {
    machine_.refuses = true;
    machine_.map(0, 1);
    ASSERT_EQ(machine_.told.size(), 2u);
    EXPECT_NE(machine_.told[1].find("qom-set /the/unit on-map-error report"), std::string::npos);
    umbra_unit_set_stop_on_map_error(machine_.unit, false);
    EXPECT_FALSE(umbra_unit_holds_machine(machine_.unit));
    umbra_unit_machine_goes_on(machine_.unit);
    EXPECT_FALSE(umbra_unit_work(machine_.unit));
    EXPECT_EQ(machine_.status(), 1u);
    EXPECT_EQ(machine_.stops, 1u);
    machine_.map(1, 2);
    EXPECT_EQ(machine_.status(), 2u);

    // The refusals so far do not count.
    umbra_unit_set_stop_on_map_error(machine_.unit, true);
    EXPECT_FALSE(umbra_unit_holds_machine(machine_.unit));
    machine_.map(2, 3);
    EXPECT_EQ(machine_.status(), 2u);
    EXPECT_EQ(machine_.stops, 2u);
}

TEST_F(StopOnMapError, CommandByRegisterCompletesWhenTheMappingIsThere) {
    umbra_unit_mmio_write(machine_.unit, 0x18, 1u << 26, 4);
    machine_.set_leaf(0);
    machine_.refuses = true;
    umbra_unit_mmio_write(machine_.unit, 0x18, 1u << 26 | 1u << 31, 4);
    EXPECT_EQ(umbra_unit_mmio_read(machine_.unit, 0x1c, 4) >> 31, 0u);
    EXPECT_FALSE(umbra_unit_work(machine_.unit));
    EXPECT_EQ(umbra_unit_mmio_read(machine_.unit, 0x1c, 4) >> 31, 0u);
    machine_.refuses = false;
    umbra_unit_machine_goes_on(machine_.unit);
    EXPECT_FALSE(umbra_unit_work(machine_.unit));
    EXPECT_EQ(umbra_unit_mmio_read(machine_.unit, 0x1c, 4) >> 31, 1u);
}

TEST_F(StopOnMapError, SavedStateHoldsTheOtherMachineToo) {
    machine_.refuses = true;
    machine_.map(0, 1);
    UmbraSavedState state;
    umbra_unit_save(machine_.unit, &state);
    umbra_unit_reset(machine_.unit);
    EXPECT_FALSE(umbra_unit_holds_machine(machine_.unit));

    ASSERT_TRUE(umbra_unit_restore(machine_.unit, &state));
    EXPECT_TRUE(umbra_unit_holds_machine(machine_.unit));
    EXPECT_FALSE(umbra_unit_has_work(machine_.unit));
    machine_.refuses = false;
    umbra_unit_machine_goes_on(machine_.unit);
    EXPECT_FALSE(umbra_unit_work(machine_.unit));
    EXPECT_EQ(machine_.status(), 1u);
}

// Registers do not say which of them is still to follow, so the other machine's guest finds the
// command done. That guest runs no earlier than this one.
TEST_F(StopOnMapError, SavedCommandIsDone) {
    umbra_unit_mmio_write(machine_.unit, 0x18, 1u << 26, 4);
    machine_.set_leaf(0);
    machine_.refuses = true;
    umbra_unit_mmio_write(machine_.unit, 0x18, 1u << 26 | 1u << 31, 4);
    UmbraSavedState state;
    umbra_unit_save(machine_.unit, &state);
    EXPECT_EQ(umbra_unit_mmio_read(machine_.unit, 0x1c, 4) >> 31, 0u);
    umbra_unit_reset(machine_.unit);
    ASSERT_TRUE(umbra_unit_restore(machine_.unit, &state));
    EXPECT_EQ(umbra_unit_mmio_read(machine_.unit, 0x1c, 4) >> 31, 1u);
    EXPECT_TRUE(umbra_unit_holds_machine(machine_.unit));
}

TEST_F(StopOnMapError, ResetDoesNotWaitForIt) {
    machine_.refuses = true;
    machine_.map(0, 1);
    ASSERT_TRUE(umbra_unit_holds_machine(machine_.unit));
    umbra_unit_reset(machine_.unit);
    EXPECT_FALSE(umbra_unit_holds_machine(machine_.unit));
    EXPECT_FALSE(umbra_unit_has_work(machine_.unit));
}

}  // namespace
}  // namespace umbra::testing
