// SPDX-License-Identifier: GPL-2.0-or-later
//
// The state of a unit that goes into a migration stream or a snapshot: the registers as software
// sees them, and the values that the unit has latched and no register shows. Plain data with fixed
// widths, so that a vmstate can list the fields.
#pragma once

#include <array>
#include <cstdint>

namespace umbra::vtd {

struct SavedState {
    static constexpr std::uint32_t kVersion = 1;
    // All registers lie below this offset.
    static constexpr std::uint32_t kRegisterBytes = 0x300;

    std::uint32_t version = kVersion;
    // Register space from offset 0, little-endian. Bytes of no register are 0.
    std::array<std::uint8_t, kRegisterBytes> registers{};
    // Root table address that the last Set Root Table Pointer command put in force.
    std::uint64_t root_table = 0;
    // Interrupt remapping table address, size and EIME of the last Set Interrupt Remap Table
    // Pointer command, in IRTA's layout.
    std::uint64_t interrupt_table = 0;
    // Fault recording register that the next fault goes to.
    std::uint32_t next_fault_record = 0;
};

}  // namespace umbra::vtd
