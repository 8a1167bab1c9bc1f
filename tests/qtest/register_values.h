// SPDX-License-Identifier: GPL-2.0-or-later
//
// The unit's registers as a whole, for tests of what resets and carries them over.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "tests/qtest/model_driver.h"
#include "tests/support/driver/layout.h"

namespace umbra::qtest {

// Registers that a driver's writes or the unit's work change.
inline constexpr std::array<std::uint32_t, 12> kStateRegisters = {driver::kGlobalStatus,
                                                                  driver::kRootTableAddress,
                                                                  driver::kFaultStatus,
                                                                  driver::kFaultEventControl,
                                                                  driver::kFaultEventData,
                                                                  driver::kFaultEventAddress,
                                                                  driver::kQueueHead,
                                                                  driver::kQueueTail,
                                                                  driver::kQueueAddress,
                                                                  driver::kCompletionStatus,
                                                                  driver::kCompletionEventControl,
                                                                  driver::kInterruptTableAddress};

// Both capability registers, then the lower halves of kStateRegisters.
[[nodiscard]] inline std::vector<std::uint64_t> register_values(ModelDriver& driver) {
    std::vector<std::uint64_t> values = {driver.read64(driver::kCapability),
                                         driver.read64(driver::kExtendedCapability)};
    for (const std::uint32_t offset : kStateRegisters) {
        values.push_back(driver.read32(offset));
    }
    return values;
}

}  // namespace umbra::qtest
