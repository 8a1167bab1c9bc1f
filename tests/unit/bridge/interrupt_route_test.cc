// SPDX-License-Identifier: GPL-2.0-or-later
//
// Interrupt routes that KVM sets up ahead of the interrupt.
#include <gtest/gtest.h>

#include <cstdint>

#include "plugin/bridge/requests.h"
#include "tests/unit/bridge/bridge_machine.h"

namespace umbra::testing {
namespace {

constexpr std::uint64_t kTable = 20 * std::uint64_t{4096};
constexpr std::uint16_t kSource = 0x0008;
// Handle 3, in remappable format.
constexpr std::uint64_t kMessage = 0xfee0'0000 | 3u << 5 | 1u << 4;
constexpr std::uint32_t kFaultStatus = 0x34;

class InterruptRoute : public ::testing::Test {
  protected:
    void SetUp() override {
        umbra_unit_mmio_write(machine_.unit, 0xb8, kTable | 7, 8);
        umbra_unit_mmio_write(machine_.unit, 0x18, 1u << 24, 4);
        umbra_unit_mmio_write(machine_.unit, 0x18, 1u << 25, 4);
    }
    // Vector 0x31 for APIC 5, or not present.
    void set_entry(bool present) {
        machine_.store(kTable + 3 * 16, std::uint64_t{5} << 40 | 0x31u << 16 | (present ? 1 : 0));
    }
    [[nodiscard]] UmbraInterrupt route() const {
        return umbra_unit_route_interrupt(machine_.unit, kSource, kMessage, 0);
    }

    BridgeMachine machine_;
};

TEST_F(InterruptRoute, LeadsWhereTheEntryLeads) {
    set_entry(true);
    const UmbraInterrupt found = route();
    EXPECT_TRUE(found.ok);
    EXPECT_TRUE(found.remapped);
    EXPECT_EQ(found.vector, 0x31);
    EXPECT_EQ(found.destination, 5u);
    EXPECT_FALSE(found.logical_destination);
}

TEST_F(InterruptRoute, OfABlockedMessageReachesNobody) {
    set_entry(true);
    ASSERT_TRUE(route().ok);
    set_entry(false);
    const UmbraInterrupt blocked = route();
    EXPECT_FALSE(blocked.ok);
    EXPECT_TRUE(blocked.remapped) << "the message as it is would be delivered";
    EXPECT_TRUE(blocked.logical_destination);
    EXPECT_EQ(blocked.destination, 0u);
    EXPECT_EQ(umbra_unit_mmio_read(machine_.unit, kFaultStatus, 4), 0u);
    // The interrupt itself is blocked, and the fault is logged.
    EXPECT_FALSE(umbra_unit_remap(machine_.unit, kSource, kMessage, 0).ok);
    EXPECT_NE(umbra_unit_mmio_read(machine_.unit, kFaultStatus, 4), 0u);
}

}  // namespace
}  // namespace umbra::testing
