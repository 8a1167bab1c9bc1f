// SPDX-License-Identifier: GPL-2.0-or-later
//
// A PCI bridge or root port, programmed as firmware and a guest's hot-plug driver do it.
#pragma once

#include <cstdint>

#include "plugin/vtd/types.h"
#include "tests/qtest/qtest_machine.h"

namespace umbra::qtest {

// Where open_window() puts the memory of what is behind a bridge: 1 MiB from here.
inline constexpr std::uint64_t kBridgeWindow = 0xe100'0000;
// The bridge that tests put at addr=8 of the root bus: for a root port, -device kRootPort.
inline constexpr SourceId kBridge(0, 8 << 3);
inline constexpr const char* kRootPort = "pcie-root-port,id=root-port,chassis=1,addr=8";
// A -global with which a root port is hot-pluggable by its registers. Hot-plug by ACPI, QEMU's
// default, needs a guest that runs AML.
inline constexpr const char* kHotplugByRegisters =
    "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off";

class PciBridge {
  public:
    // `machine` outlives it. Nothing is written yet.
    PciBridge(QtestMachine& machine, SourceId function) : machine_(machine), function_(function) {}

    // The bus right behind the bridge and the last one; 0 and 0 take the numbers away.
    void set_buses(std::uint8_t secondary, std::uint8_t subordinate);
    // Lets memory accesses through to kBridgeWindow, and transfers of what is behind it.
    void open_window();
    // Power indicator and power of the slot, in the PCI Express capability. A root port removes the
    // device that a device_del has asked for once both are off.
    void switch_slot_on();
    void switch_slot_off();

  private:
    void set_slot_control(std::uint16_t value);

    QtestMachine& machine_;
    SourceId function_;
};

}  // namespace umbra::qtest
