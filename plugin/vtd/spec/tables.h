// SPDX-License-Identifier: GPL-2.0-or-later
//
// Layout of the tables in guest memory that a unit reads in legacy mode: root entry, context entry,
// second-stage paging entry and interrupt remapping table entry (specification 9.1, 9.3, 9.8, 9.9).
// Layout only: what follows from a field is decided elsewhere. Every multi-byte field is
// little-endian, as guest memory is.
//
// Fields are named as the specification names them. A `bits(high, low)` mask covers both ends.
#pragma once

#include <cstdint>

namespace umbra::vtd::spec {

constexpr std::uint64_t bit(unsigned position) {
    return std::uint64_t{1} << position;
}
constexpr std::uint64_t bits(unsigned high, unsigned low) {
    return (~std::uint64_t{0} >> (63 - high)) & (~std::uint64_t{0} << low);
}

// Mask of the bits that a physical address of `width` bits (at most 63) does not have.
constexpr std::uint64_t above_address_width(unsigned width) {
    return ~std::uint64_t{0} << width;
}

// Pointers to tables and pages: bits 63:12 of a quad-word.
inline constexpr std::uint64_t kAddressField = bits(63, 12);

// Root entry: 16 bytes, indexed by bus number. The table is one 4 KiB page.
struct RootEntry {
    static constexpr unsigned kBytes = 16;

    std::uint64_t low = 0;
    std::uint64_t high = 0;

    static constexpr std::uint64_t kPresent = bit(0);
    static constexpr std::uint64_t kReservedLow = bits(11, 1);  // and address bits above the width
    static constexpr std::uint64_t kReservedHigh = bits(63, 0);

    [[nodiscard]] constexpr bool present() const { return (low & kPresent) != 0; }
    // CTP
    [[nodiscard]] constexpr std::uint64_t context_table() const { return low & kAddressField; }
};

// Context entry: 16 bytes, indexed by device and function number. The table is one 4 KiB page.
struct ContextEntry {
    static constexpr unsigned kBytes = 16;

    std::uint64_t low = 0;
    std::uint64_t high = 0;

    static constexpr std::uint64_t kPresent = bit(0);
    static constexpr std::uint64_t kFaultProcessingDisable = bit(1);
    static constexpr unsigned kTranslationTypeShift = 2;
    static constexpr std::uint64_t kTranslationType = bits(3, 2);
    static constexpr std::uint64_t kReservedLow = bits(11, 4);  // and address bits above the width
    static constexpr std::uint64_t kAddressWidth = bits(2, 0);
    // Bits 6:3 of the high quad-word are available to software.
    static constexpr std::uint64_t kReservedHigh = bit(7) | bits(63, 24);
    static constexpr unsigned kDomainShift = 8;

    [[nodiscard]] constexpr bool present() const { return (low & kPresent) != 0; }
    // FPD. Holds whether the entry is present or not.
    [[nodiscard]] constexpr bool fault_processing_disabled() const {
        return (low & kFaultProcessingDisable) != 0;
    }
    // TT: 0 second stage, 1 the same with device-TLBs, 2 pass-through, 3 reserved
    [[nodiscard]] constexpr unsigned translation_type() const {
        return static_cast<unsigned>((low & kTranslationType) >> kTranslationTypeShift);
    }
    // SSPTPTR
    [[nodiscard]] constexpr std::uint64_t second_stage_table() const { return low & kAddressField; }
    // AW: 1 for 39 bits and three levels, 2 for 48 bits and four, 3 for 57 and five
    [[nodiscard]] constexpr unsigned address_width() const {
        return static_cast<unsigned>(high & kAddressWidth);
    }
    // DID
    [[nodiscard]] constexpr std::uint16_t domain() const {
        return static_cast<std::uint16_t>(high >> kDomainShift);
    }
};

// Second-stage paging entry, 8 bytes, 512 in a table. Level 1 holds 4 KiB leaves; an entry of level
// 2 or 3 with PS set is a leaf of 2 MiB or 1 GiB.
struct SecondStageEntry {
    static constexpr unsigned kBytes = 8;

    static constexpr std::uint64_t kRead = bit(0);
    static constexpr std::uint64_t kWrite = bit(1);
    static constexpr std::uint64_t kPageSize = bit(7);  // PS; reserved at levels 4 and up
    static constexpr std::uint64_t kSnoop = bit(11);    // SNP; in leaves, and if ECAP.SC is set
    // Bits 51:12 hold an address; those at and above the host address width are reserved.
    static constexpr std::uint64_t kAddress = bits(51, 12);
    static constexpr std::uint64_t kReserved = bit(62);
};

// Interrupt remapping table entry: 16 bytes, up to 65,536 in a table.
struct InterruptEntry {
    static constexpr unsigned kBytes = 16;

    std::uint64_t low = 0;
    std::uint64_t high = 0;

    static constexpr std::uint64_t kPresent = bit(0);
    static constexpr std::uint64_t kFaultProcessingDisable = bit(1);
    static constexpr std::uint64_t kDestinationModeLogical = bit(2);
    static constexpr std::uint64_t kRedirectionHint = bit(3);
    static constexpr std::uint64_t kTriggerModeLevel = bit(4);
    static constexpr unsigned kDeliveryModeShift = 5;
    static constexpr std::uint64_t kPostedFormat = bit(15);  // IM; only if CAP.PI is set
    static constexpr unsigned kVectorShift = 16;
    // Bits 11:8 are available to software.
    static constexpr std::uint64_t kReservedLow = bits(14, 12) | bits(31, 24);
    // With EIME clear, the destination is eight bits wide and these are reserved too.
    static constexpr std::uint64_t kReservedLowWithoutExtendedMode = bits(63, 48) | bits(39, 32);
    static constexpr std::uint64_t kReservedHigh = bits(63, 20);
    static constexpr unsigned kDestinationShift = 32;
    static constexpr unsigned kDestinationShiftWithoutExtendedMode = 40;
    static constexpr unsigned kSourceQualifierShift = 16;
    static constexpr unsigned kSourceValidationShift = 18;

    [[nodiscard]] constexpr bool present() const { return (low & kPresent) != 0; }
    // FPD. Holds whether the entry is present or not.
    [[nodiscard]] constexpr bool fault_processing_disabled() const {
        return (low & kFaultProcessingDisable) != 0;
    }
    // DLM
    [[nodiscard]] constexpr unsigned delivery_mode() const {
        return static_cast<unsigned>(low >> kDeliveryModeShift) & 7;
    }
    [[nodiscard]] constexpr std::uint8_t vector() const {
        return static_cast<std::uint8_t>(low >> kVectorShift);
    }
    // SID
    [[nodiscard]] constexpr std::uint16_t source() const {
        return static_cast<std::uint16_t>(high);
    }
    // SQ
    [[nodiscard]] constexpr unsigned source_qualifier() const {
        return static_cast<unsigned>(high >> kSourceQualifierShift) & 3;
    }
    // SVT: 0 no check, 1 SID under SQ, 2 bus range in SID, 3 reserved
    [[nodiscard]] constexpr unsigned source_validation() const {
        return static_cast<unsigned>(high >> kSourceValidationShift) & 3;
    }
};

}  // namespace umbra::vtd::spec
