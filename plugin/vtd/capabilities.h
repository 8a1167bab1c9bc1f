// SPDX-License-Identifier: GPL-2.0-or-later
//
// The capabilities that the unit reports to software: the CAP and ECAP registers (VT-d
// specification 11.4.2 and 11.4.3), built from the properties of the device. The limits that other
// parts check against are here too, so that the reported number is the enforced one.
#pragma once

#include <cstdint>

#include "plugin/vtd/unit_properties.h"

namespace umbra::vtd {

// CAP.MAMV: largest page-selective invalidation, 2^18 pages of 4 KiB (1 GiB, the largest leaf).
inline constexpr unsigned kMaximumAddressMask = 18;
// ECAP.MHMV: largest index mask of an interrupt entry invalidation.
inline constexpr unsigned kMaximumHandleMask = 15;

struct Capabilities {
    std::uint64_t cap = 0;
    std::uint64_t ecap = 0;
    // Mask of the address bits that a guest-physical address can have.
    std::uint64_t host_address_mask = 0;

    [[nodiscard]] bool device_tlb() const;
    [[nodiscard]] bool interrupt_remapping() const;
    [[nodiscard]] bool extended_interrupt_mode() const;
    [[nodiscard]] bool zero_length_reads() const;
};

// `properties.error()` must be null.
[[nodiscard]] Capabilities capabilities_of(const UnitProperties& properties);

}  // namespace umbra::vtd
