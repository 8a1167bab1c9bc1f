// SPDX-License-Identifier: GPL-2.0-or-later
//
// Layout of the tables in guest memory that a unit reads in legacy mode: root entry, context entry,
// second-stage paging entry and interrupt remapping table entry (VT-d specification 9.1, 9.3, 9.8
// and 9.9). The name in the comment of a field is the specification's. Every multi-byte field is
// little-endian, as guest memory is.
#pragma once

#include <cstdint>

#include "plugin/vtd/spec/field.h"
#include "plugin/vtd/types.h"

namespace umbra::vtd::spec {

// Root Entry, 9.1: indexed by bus number. The table is one 4 KiB page. Address bits at and above
// the host address width are reserved as well.
struct RootEntry {
    static constexpr unsigned kBytes = 16;

    using ContextTable = AddressField<63, 12, Gpa>;  // CTP
    using Present = Flag<0>;                         // P
    using All = Layout<128, ContextTable, Present>;
};

// Context Entry, 9.3: indexed by device and function number. The table is one 4 KiB page. Address
// bits at and above the host address width are reserved as well.
struct ContextEntry {
    static constexpr unsigned kBytes = 16;

    using Domain = Field<87, 72, DomainId>;  // DID
    using Available = Field<70, 67>;         // for software
    // AW: 1 for 39 bits and three levels, 2 for 48 bits and four, 3 for 57 and five
    using AddressWidth = Field<66, 64, unsigned>;
    using SecondStageTable = AddressField<63, 12, Gpa>;  // SSPTPTR
    // TT: 0 second stage, 1 the same with device-TLBs, 2 pass-through, 3 reserved
    using TranslationType = Field<3, 2, unsigned>;
    // FPD. Holds whether the entry is present or not.
    using FaultProcessingDisable = Flag<1>;
    using Present = Flag<0>;  // P
    using All = Layout<128, Domain, Available, AddressWidth, SecondStageTable, TranslationType,
                       FaultProcessingDisable, Present>;
};

// Second-Stage Paging Entry, 9.8: 8 bytes, 512 in a table. Level 1 holds 4 KiB leaves; an entry of
// level 2 or 3 with PS set is a leaf of 2 MiB or 1 GiB. In legacy mode the unit ignores the bits
// that hold execute permission, memory type, accessed and dirty in other modes. Whether PS and SNP
// are reserved depends on the level and the capabilities (EntryFormat).
struct SecondStageEntry {
    static constexpr unsigned kBytes = 8;

    using IgnoredAtTop = Flag<63>;
    using IgnoredAboveAddress = Field<61, 52>;
    // Those bits at and above the host address width are reserved.
    using Address = AddressField<51, 12, Gpa>;
    using Snoop = Flag<11>;  // SNP, in leaves
    using IgnoredAccessedDirty = Field<10, 8>;
    using PageSize = Flag<7>;  // PS
    using IgnoredTypeExecute = Field<6, 2>;
    using Permissions = Field<1, 0, Access>;  // R is bit 0, W is bit 1
    using All = Layout<64, IgnoredAtTop, IgnoredAboveAddress, Address, Snoop, IgnoredAccessedDirty,
                       PageSize, IgnoredTypeExecute, Permissions>;
};

// Interrupt Remapping Table Entry for remapped interrupts, 9.9: up to 65,536 in a table.
struct InterruptEntry {
    static constexpr unsigned kBytes = 16;

    // SVT: 0 no check, 1 SID under SQ, 2 bus range in SID, 3 reserved
    using SourceValidation = Field<83, 82, unsigned>;
    using SourceQualifier = Field<81, 80, unsigned>;   // SQ
    using Source = Field<79, 64, SourceId>;            // SID
    using Destination = Field<63, 32, std::uint32_t>;  // DST
    using Vector = Field<23, 16, std::uint8_t>;        // V
    using PostedFormat = Flag<15>;                     // IM; only if CAP.PI is set
    using Available = Field<11, 8>;                    // for software
    using DeliveryMode = Field<7, 5, unsigned>;        // DLM
    using TriggerModeLevel = Flag<4>;                  // TM
    using RedirectionHint = Flag<3>;                   // RH
    using DestinationModeLogical = Flag<2>;            // DM
    // FPD. Holds whether the entry is present or not.
    using FaultProcessingDisable = Flag<1>;
    using Present = Flag<0>;  // P
    using All = Layout<128, SourceValidation, SourceQualifier, Source, Destination, Vector,
                       PostedFormat, Available, DeliveryMode, TriggerModeLevel, RedirectionHint,
                       DestinationModeLogical, FaultProcessingDisable, Present>;

    // With EIME clear the destination is eight bits wide, and the rest of DST is reserved.
    using ShortDestination = Field<47, 40, std::uint32_t>;
    static constexpr std::uint64_t kReservedWithShortDestination =
        Destination::kMask & ~ShortDestination::kMask;

    // SID as a range of buses.
    using FirstBus = Field<79, 72, std::uint8_t>;
    using LastBus = Field<71, 64, std::uint8_t>;
};

}  // namespace umbra::vtd::spec
