// SPDX-License-Identifier: GPL-2.0-or-later
//
// The outcome of the property eim, and when it changes the machine's interrupt controller.
#include <gtest/gtest.h>

#include <string>

#include "plugin/bridge/unit.h"

namespace umbra::testing {
namespace {

class ExtendedInterruptMode : public ::testing::Test {
  protected:
    void SetUp() override {
        machine_can = true;
        switched_on = 0;
    }

    // The sentence that refuses the choice; empty if there is none.
    std::string decide(UmbraChoice eim, bool interrupt_remapping) {
        const char* problem = umbra_decide_extended_interrupt_mode(
            eim, interrupt_remapping,
            [] {
                switched_on++;
                return machine_can;
            },
            &enabled);
        return problem != nullptr ? problem : "";
    }

    static inline bool machine_can;
    static inline int switched_on;
    bool enabled = true;
};

TEST_F(ExtendedInterruptMode, OffLeavesTheInterruptControllerAlone) {
    EXPECT_EQ(decide(UMBRA_CHOICE_OFF, true), "");
    EXPECT_FALSE(enabled);
    EXPECT_EQ(switched_on, 0);
}

TEST_F(ExtendedInterruptMode, AutoWithoutRemappingLeavesTheInterruptControllerAlone) {
    EXPECT_EQ(decide(UMBRA_CHOICE_AUTO, false), "");
    EXPECT_FALSE(enabled);
    EXPECT_EQ(switched_on, 0);
}

TEST_F(ExtendedInterruptMode, AutoIsOnIfTheMachineCan) {
    for (const bool can : {false, true}) {
        machine_can = can;
        EXPECT_EQ(decide(UMBRA_CHOICE_AUTO, true), "");
        EXPECT_EQ(enabled, can);
    }
    EXPECT_EQ(switched_on, 2);
}

TEST_F(ExtendedInterruptMode, OnNeedsRemapping) {
    EXPECT_EQ(decide(UMBRA_CHOICE_ON, false), "eim=on needs intremap=on");
    EXPECT_FALSE(enabled);
    EXPECT_EQ(switched_on, 0);
}

TEST_F(ExtendedInterruptMode, OnNeedsAMachineThatCan) {
    EXPECT_EQ(decide(UMBRA_CHOICE_ON, true), "");
    EXPECT_TRUE(enabled);
    machine_can = false;
    EXPECT_NE(decide(UMBRA_CHOICE_ON, true).find("kernel-irqchip=split"), std::string::npos);
    EXPECT_FALSE(enabled);
}

}  // namespace
}  // namespace umbra::testing
