// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/qtest/pci_bridge.h"

namespace umbra::qtest {
namespace {

// Configuration space of a bridge (PCI-to-PCI Bridge Architecture 3.2).
constexpr unsigned kCommand = 0x04;
constexpr unsigned kBusNumbers = 0x18;
constexpr unsigned kMemoryBaseAndLimit = 0x20;
constexpr std::uint16_t kMemoryAndBusMaster = 0x6;

// PCI Express capability (PCI Express Base 7.5.3).
constexpr unsigned kExpressCapability = 0x10;
constexpr unsigned kSlotControl = 0x18;
constexpr std::uint16_t kIndicatorOnPowerOn = 0x0100;
constexpr std::uint16_t kIndicatorOffPowerOff = 0x0700;

}  // namespace

void PciBridge::set_buses(std::uint8_t secondary, std::uint8_t subordinate) {
    const std::uint32_t primary = function_.bus();
    machine_.config_write32(
        function_, kBusNumbers,
        std::uint32_t{subordinate} << 16 | std::uint32_t{secondary} << 8 | primary);
}

void PciBridge::open_window() {
    constexpr auto kMegabyte = static_cast<std::uint32_t>(kBridgeWindow >> 16);
    machine_.config_write32(function_, kMemoryBaseAndLimit, kMegabyte << 16 | kMegabyte);
    machine_.config_write16(function_, kCommand, kMemoryAndBusMaster);
}

void PciBridge::set_slot_control(std::uint16_t value) {
    const unsigned capability = machine_.find_capability(function_, kExpressCapability);
    machine_.config_write16(function_, capability + kSlotControl, value);
}

void PciBridge::switch_slot_on() {
    set_slot_control(kIndicatorOnPowerOn);
}

void PciBridge::switch_slot_off() {
    set_slot_control(kIndicatorOffPowerOff);
}

}  // namespace umbra::qtest
