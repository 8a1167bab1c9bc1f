// SPDX-License-Identifier: GPL-2.0-or-later
//
// Layout of the unit's registers (VT-d specification 11.4): where each one lies, and its fields.
// The name in the comment of a field is the specification's. Who may write a field is in
// register_table.cc, and behaviour is elsewhere.
//
// Fields of capabilities that this unit never reports are not declared: advanced fault logging,
// write-buffer flushing, scalable mode, PASIDs and page requests.
#pragma once

#include <cstdint>

#include "plugin/vtd/fault_reason.h"
#include "plugin/vtd/spec/field.h"
#include "plugin/vtd/types.h"

namespace umbra::vtd::spec {

// A register of `Width` bits, 32 or 64, at `Offset` bytes from the unit's base address.
template <std::uint32_t Offset, unsigned Width>
struct RegisterAt {
    static constexpr std::uint32_t kOffset = Offset;
    static constexpr unsigned kWidth = Width;
    static constexpr unsigned kBytes = Width / 8;
};

// Granularity of an invalidation, in commands by register (11.4.6) and in descriptors (6.5.2). The
// most selective one is a device's for the context cache and pages for the IOTLB.
enum class Granularity : std::uint8_t { reserved, global, domain, selective };

// Version Register, 11.4.1
struct Version : RegisterAt<0x000, 32> {
    using Major = Field<7, 4>;  // MAX
    using Minor = Field<3, 0>;  // MIN
    using All = Layout<32, Major, Minor>;
};

// Capability Register, 11.4.2
struct Capability : RegisterAt<0x008, 64> {
    using RootTableFlushes = Flag<63>;          // ESRTPS
    using InterruptTableFlushes = Flag<62>;     // ESIRTPS
    using ReadDraining = Flag<55>;              // DRD
    using WriteDraining = Flag<54>;             // DWD
    using MaximumAddressMask = Field<53, 48>;   // MAMV
    using FaultRecords = Field<47, 40>;         // NFR, number minus 1
    using PageSelective = Flag<39>;             // PSI
    using LargePages = Field<37, 34>;           // SSLPS
    using FaultRecordOffset = Field<33, 24>;    // FRO, in units of 16 bytes
    using ZeroLengthRead = Flag<22>;            // ZLR
    using MaximumAddressWidth = Field<21, 16>;  // MGAW, width minus 1
    using AddressWidths = Field<12, 8>;         // SAGAW
    using CachingMode = Flag<7>;                // CM
    using Domains = Field<2, 0>;                // ND
    using All =
        Layout<64, RootTableFlushes, InterruptTableFlushes, ReadDraining, WriteDraining,
               MaximumAddressMask, FaultRecords, PageSelective, LargePages, FaultRecordOffset,
               ZeroLengthRead, MaximumAddressWidth, AddressWidths, CachingMode, Domains>;
};

// Extended Capability Register, 11.4.3
struct ExtendedCapability : RegisterAt<0x010, 64> {
    using MaximumHandleMask = Field<23, 20>;  // MHMV
    using IotlbOffset = Field<17, 8>;         // IRO, in units of 16 bytes
    using SnoopControl = Flag<7>;             // SC
    using PassThrough = Flag<6>;              // PT
    using ExtendedInterruptMode = Flag<4>;    // EIM
    using InterruptRemapping = Flag<3>;       // IR
    using DeviceTlb = Flag<2>;                // DT
    using QueuedInvalidation = Flag<1>;       // QI
    using PageWalkCoherency = Flag<0>;        // C
    using All =
        Layout<64, MaximumHandleMask, IotlbOffset, SnoopControl, PassThrough, ExtendedInterruptMode,
               InterruptRemapping, DeviceTlb, QueuedInvalidation, PageWalkCoherency>;
};

// The command and the status of one function have the same bit.
struct GlobalFields {
    using Translation = Flag<31>;              // TE, TES
    using RootTablePointer = Flag<30>;         // SRTP, RTPS
    using QueuedInvalidation = Flag<26>;       // QIE, QIES
    using InterruptRemapping = Flag<25>;       // IRE, IRES
    using InterruptTablePointer = Flag<24>;    // SIRTP, IRTPS
    using CompatibilityInterrupts = Flag<23>;  // CFI, CFIS
    using All = Layout<32, Translation, RootTablePointer, QueuedInvalidation, InterruptRemapping,
                       InterruptTablePointer, CompatibilityInterrupts>;
};
// Global Command Register, 11.4.4.1
struct GlobalCommand : RegisterAt<0x018, 32>, GlobalFields {};
// Global Status Register, 11.4.4.2
struct GlobalStatus : RegisterAt<0x01c, 32>, GlobalFields {};

// Root Table Address Register, 11.4.5. TTM (11:10) is reserved without scalable mode.
struct RootTableAddress : RegisterAt<0x020, 64> {
    using Address = AddressField<63, 12, Gpa>;  // RTA
    using All = Layout<64, Address>;
};

// Context Command Register, 11.4.6.1
struct ContextCommand : RegisterAt<0x028, 64> {
    using Invalidate = Flag<63>;                   // ICC
    using Requested = Field<62, 61, Granularity>;  // CIRG
    using Actual = Field<60, 59, Granularity>;     // CAIG
    using FunctionMask = Field<33, 32, unsigned>;  // FM
    using Source = Field<31, 16, SourceId>;        // SID
    using Domain = Field<15, 0, DomainId>;         // DID
    using All = Layout<64, Invalidate, Requested, Actual, FunctionMask, Source, Domain>;
};

// Invalidate Address Register, 11.4.6.4. ECAP.IRO places it and the next one: 0x0f0 is the last 16
// bytes that no other register claims below the memory-type registers.
struct InvalidateAddress : RegisterAt<0x0f0, 64> {
    using Address = AddressField<63, 12, Iova>;  // ADDR
    using LeafOnly = Flag<6>;                    // IH
    using AddressMask = Field<5, 0, unsigned>;   // AM
    using All = Layout<64, Address, LeafOnly, AddressMask>;
};

// IOTLB Invalidate Register, 11.4.6.3
struct IotlbInvalidate : RegisterAt<0x0f8, 64> {
    using Invalidate = Flag<63>;                   // IVT
    using Requested = Field<61, 60, Granularity>;  // IIRG
    using Actual = Field<58, 57, Granularity>;     // IAIG
    using DrainReads = Flag<49>;                   // DR
    using DrainWrites = Flag<48>;                  // DW
    using Domain = Field<47, 32, DomainId>;        // DID
    using All = Layout<64, Invalidate, Requested, Actual, DrainReads, DrainWrites, Domain>;
};

// Fault Status Register, 11.4.7.1
struct FaultStatus : RegisterAt<0x034, 32> {
    using RecordIndex = Field<15, 8, std::uint32_t>;  // FRI
    using TimeoutError = Flag<6>;                     // ITE
    using CompletionError = Flag<5>;                  // ICE
    using QueueError = Flag<4>;                       // IQE
    using Pending = Flag<1>;                          // PPF: some recording register has F
    using Overflow = Flag<0>;                         // PFO
    using All =
        Layout<32, RecordIndex, TimeoutError, CompletionError, QueueError, Pending, Overflow>;
};

// An interrupt of the unit itself has four registers in a row: control, data, address, upper
// address.
struct EventControlFields {
    using Mask = Flag<31>;     // IM
    using Pending = Flag<30>;  // IP
    using All = Layout<32, Mask, Pending>;
};
struct EventDataFields {
    using Data = Field<31, 0>;  // EIMD and IMD
    using All = Layout<32, Data>;
};
struct EventAddressFields {
    using Address = AddressField<31, 2>;  // MA
    using All = Layout<32, Address>;
};
struct EventUpperAddressFields {
    using Address = Field<31, 0>;  // MUA
    using All = Layout<32, Address>;
};
// Fault Event Control, Data, Address and Upper Address Register, 11.4.7.2 to 11.4.7.5
struct FaultEventControl : RegisterAt<0x038, 32>, EventControlFields {};
struct FaultEventData : RegisterAt<0x03c, 32>, EventDataFields {};
struct FaultEventAddress : RegisterAt<0x040, 32>, EventAddressFields {};
struct FaultEventUpperAddress : RegisterAt<0x044, 32>, EventUpperAddressFields {};

// Fault Recording Registers, 11.4.7.6: 128 bits each, as two registers of 64 bits. CAP.FRO places
// the first one at the first address after the memory-type registers.
struct FaultRecord {
    static constexpr std::uint32_t kOffset = 0x220;
    static constexpr std::uint32_t kBytes = 16;
    // Bytes from the start of a record to its bits 127:64.
    static constexpr std::uint32_t kHighOffset = 8;
    // How many of them CAP.NFR reports. A burst of faults from several devices fits; Linux walks
    // all of them in its handler, so more would only cost it time.
    static constexpr std::uint32_t kCount = 8;

    using Fault = Flag<127>;                     // F
    using Read = Flag<126>;                      // T1: 1 read, 0 write
    using Reason = Field<103, 96, FaultReason>;  // FR
    using Source = Field<79, 64, SourceId>;      // SID
    using Information = AddressField<63, 12>;    // FI: page of the faulting address
    using All = Layout<128, Fault, Read, Reason, Source, Information>;
    // FI of an interrupt request: the index of the table entry.
    using InterruptIndex = Field<63, 48, std::uint16_t>;

    static constexpr std::uint32_t offset_of(std::uint32_t index) {
        return kOffset + index * kBytes;
    }
};

// Protected Memory Enable Register and the limits of the regions, 11.4.8.1 to 11.4.8.5. The unit
// has no protected regions (CAP.PLMR and CAP.PHMR are 0).
struct ProtectedMemoryEnable : RegisterAt<0x064, 32> {};
struct ProtectedLowMemoryBase : RegisterAt<0x068, 32> {};
struct ProtectedLowMemoryLimit : RegisterAt<0x06c, 32> {};
struct ProtectedHighMemoryBase : RegisterAt<0x070, 64> {};
struct ProtectedHighMemoryLimit : RegisterAt<0x078, 64> {};

// Byte offset of a descriptor of 128 bits from the start of the queue.
struct QueueOffsetFields {
    using Offset = AddressField<18, 4>;  // QH, QT
    using All = Layout<64, Offset>;
};
// Invalidation Queue Head Register, 11.4.9.1
struct InvalidationQueueHead : RegisterAt<0x080, 64>, QueueOffsetFields {};
// Invalidation Queue Tail Register, 11.4.9.2
struct InvalidationQueueTail : RegisterAt<0x088, 64>, QueueOffsetFields {};

// Invalidation Queue Address Register, 11.4.9.3. DW (11) is reserved without scalable mode:
// descriptors are always 128 bits wide.
struct InvalidationQueueAddress : RegisterAt<0x090, 64> {
    using Address = AddressField<63, 12, Gpa>;  // IQA
    using Size = Field<2, 0, unsigned>;         // QS: 2^QS pages of 4 KiB
    using All = Layout<64, Address, Size>;
};

// Invalidation Completion Status Register, 11.4.9.4
struct InvalidationCompletionStatus : RegisterAt<0x09c, 32> {
    using WaitComplete = Flag<0>;  // IWC
    using All = Layout<32, WaitComplete>;
};

// Invalidation Event Control, Data, Address and Upper Address Register, 11.4.9.5 to 11.4.9.8
struct InvalidationEventControl : RegisterAt<0x0a0, 32>, EventControlFields {};
struct InvalidationEventData : RegisterAt<0x0a4, 32>, EventDataFields {};
struct InvalidationEventAddress : RegisterAt<0x0a8, 32>, EventAddressFields {};
struct InvalidationEventUpperAddress : RegisterAt<0x0ac, 32>, EventUpperAddressFields {};

// Interrupt Remapping Table Address Register, 11.4.10
struct InterruptTableAddress : RegisterAt<0x0b8, 64> {
    using Address = AddressField<63, 12, Gpa>;  // IRTA
    using ExtendedMode = Flag<11>;              // EIME
    using Size = Field<3, 0, unsigned>;         // S: 2^(S+1) entries
    using All = Layout<64, Address, ExtendedMode, Size>;
};

}  // namespace umbra::vtd::spec
