// SPDX-License-Identifier: GPL-2.0-or-later
//
// Who hears of an invalidation, in which order, and before which completion: the shadow, then the
// platform, then the guest.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/unit/bridge/bridge_machine.h"

namespace umbra::testing {
namespace {

using Lines = std::vector<std::string>;

class FanOut : public ::testing::Test {
  protected:
    FanOut() {
        machine_.translate();
        machine_.set_leaf(0);
        machine_.put(0x2 | 1u << 4, 0);
        machine_.put_wait(1);
        machine_.ring();
        machine_.journal.clear();
    }

    // Invalidates with one descriptor and waits with status 2. Returns what was called.
    Lines invalidate(std::uint64_t low, std::uint64_t high = 0) {
        machine_.put(low, high);
        machine_.put_wait(2);
        machine_.ring();
        EXPECT_EQ(machine_.status(), 2u);
        return machine_.journal;
    }

    BridgeMachine machine_;
};

TEST_F(FanOut, ContextInvalidationsReachThePlatformWithTheirScope) {
    EXPECT_EQ(invalidate(0x1 | 1u << 4), Lines{"1 contexts global"});
    machine_.journal.clear();
    EXPECT_EQ(invalidate(0x1 | 2u << 4 | 1u << 16), Lines{"2 contexts domain 1"});
    machine_.journal.clear();
    // FM 2: function bits 2:1 are not compared.
    EXPECT_EQ(invalidate(0x1 | 3u << 4 | 1u << 16 | std::uint64_t{2} << 48),
              Lines{"2 contexts domain 1 device 0/6"});
}

TEST_F(FanOut, IotlbInvalidationsReachThePlatformWithTheirScope) {
    EXPECT_EQ(invalidate(0x2 | 1u << 4), Lines{"1 iotlb global"});
    machine_.journal.clear();
    EXPECT_EQ(invalidate(0x2 | 2u << 4 | 1u << 16), Lines{"2 iotlb domain 1"});
    machine_.journal.clear();
    EXPECT_EQ(invalidate(0x2 | 3u << 4 | 1u << 16, 2 * BridgeMachine::kPage | 1),
              Lines{"2 iotlb domain 1 8192-16383"});
}

TEST_F(FanOut, ShadowSwitchesItsDevicesBeforeThePlatformSwitchesTheOthers) {
    machine_.store(BridgeMachine::kContexts, BridgeMachine::kTop);  // not present
    EXPECT_EQ(invalidate(0x1 | 1u << 4),
              (Lines{"1 unmap 0-4095", "1 mode 0", "1 contexts global"}));
}

TEST_F(FanOut, HostMapsAreMadeBeforeTheGuestSeesTheCompletion) {
    machine_.set_leaf(3);
    EXPECT_EQ(invalidate(0x2 | 3u << 4 | 1u << 16, 3 * BridgeMachine::kPage),
              (Lines{"1 iotlb domain 1 12288-16383", "1 map 12288-16383"}));
}

TEST_F(FanOut, DeviceTlbInvalidationNamesTheDevice) {
    EXPECT_EQ(invalidate(0x3 | std::uint64_t{0x0810} << 32, 0x5000),
              Lines{"1 device-tlb 2064 20480-24575"});
}

TEST_F(FanOut, InterruptEntryInvalidationsBecomeOneCall) {
    for (unsigned index = 0; index < 3; ++index) {
        machine_.put(0x4 | 1u << 4 | std::uint64_t{index} << 32, 0);
    }
    EXPECT_EQ(invalidate(0x4), Lines{"1 interrupt-entries"});
    machine_.journal.clear();
    EXPECT_EQ(invalidate(0x2 | 1u << 4), Lines{"2 iotlb global"}) << "told of once";
}

TEST_F(FanOut, TranslationIsSwitchedForTheShadowFirst) {
    umbra_unit_mmio_write(machine_.unit, 0x18, 1u << 26, 4);
    EXPECT_EQ(machine_.journal, (Lines{"1 unmap 0-4095", "1 mode 2", "1 translation"}));
}

}  // namespace
}  // namespace umbra::testing
