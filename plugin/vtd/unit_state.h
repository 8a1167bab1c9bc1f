// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a unit has in force for DMA and for interrupts: two words, so that a request of a device
// sees table address and mode of one moment. Internal to the unit.
#pragma once

#include "plugin/vtd/spec/field.h"
#include "plugin/vtd/spec/registers.h"

namespace umbra::vtd {

// The root table address as latched by SRTP, and whether translation is on.
struct TranslationFields {
    using RootTable = spec::RootTableAddress::Address;
    using On = spec::Flag<0>;
    using All = spec::Layout<64, RootTable, On>;
};

// IRTA as latched by SIRTP, and in bits that it leaves free whether remapping is on and whether
// compatibility-format interrupts pass.
struct InterruptFields : spec::InterruptTableAddress {
    using CompatibilityAllowed = spec::Flag<5>;
    using RemappingOn = spec::Flag<4>;
    using All = spec::Layout<64, Address, ExtendedMode, CompatibilityAllowed, RemappingOn, Size>;

    // What is latched.
    static constexpr std::uint64_t kTable = spec::InterruptTableAddress::All::kFields.low;
};

}  // namespace umbra::vtd
