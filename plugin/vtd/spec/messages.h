// SPDX-License-Identifier: GPL-2.0-or-later
//
// Layout of an interrupt request as a device writes it: 32 bits of data to an address in the
// interrupt address range. Bit 4 of the address tells the two formats apart.
#pragma once

#include <cstdint>

#include "plugin/vtd/spec/field.h"

namespace umbra::vtd::spec {

// Bit 4 of the address in both formats.
struct MessageAddress {
    using Remappable = Flag<4>;  // interrupt format
};

// Interrupt requests in compatibility format, 5.1.2.1
struct CompatibilityAddress : MessageAddress {
    using Destination = Field<19, 12, std::uint32_t>;
    using RedirectionHint = Flag<3>;
    using DestinationModeLogical = Flag<2>;
};
struct CompatibilityData {
    using TriggerModeLevel = Flag<15>;
    using DeliveryMode = Field<10, 8, unsigned>;
    using Vector = Field<7, 0, std::uint8_t>;
};

// Interrupt requests in remappable format, 5.1.2.2
struct RemappableAddress : MessageAddress {
    using HandleLow = Field<19, 5, std::uint32_t>;  // bits 14:0 of the handle
    using SubhandleValid = Flag<3>;                 // SHV
    using HandleHigh = Field<2, 2, std::uint32_t>;  // bit 15 of the handle

    static constexpr std::uint32_t handle(std::uint64_t address) {
        return HandleHigh::get(address) << 15 | HandleLow::get(address);
    }
};
// The data, if SHV is set.
struct RemappableData {
    using Subhandle = Field<15, 0, std::uint32_t>;
    using All = Layout<32, Subhandle>;
};

}  // namespace umbra::vtd::spec
