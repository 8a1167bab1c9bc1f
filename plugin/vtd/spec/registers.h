// SPDX-License-Identifier: GPL-2.0-or-later
//
// Layout of the unit's registers (VT-d specification chapter 11.4): where each one lies and what
// its bits mean. Layout only; who may write what is in registers.cc, behaviour is elsewhere.
#pragma once

#include <cstdint>

namespace umbra::vtd::spec {

// Byte offsets from the unit's base address.
namespace offset {
inline constexpr std::uint32_t kVersion = 0x000;
inline constexpr std::uint32_t kCapability = 0x008;
inline constexpr std::uint32_t kExtendedCapability = 0x010;
inline constexpr std::uint32_t kGlobalCommand = 0x018;
inline constexpr std::uint32_t kGlobalStatus = 0x01c;
inline constexpr std::uint32_t kRootTableAddress = 0x020;
inline constexpr std::uint32_t kContextCommand = 0x028;
inline constexpr std::uint32_t kFaultStatus = 0x034;
inline constexpr std::uint32_t kFaultEventControl = 0x038;
inline constexpr std::uint32_t kFaultEventData = 0x03c;
inline constexpr std::uint32_t kFaultEventAddress = 0x040;
inline constexpr std::uint32_t kFaultEventUpperAddress = 0x044;
inline constexpr std::uint32_t kProtectedMemoryEnable = 0x064;
inline constexpr std::uint32_t kProtectedLowMemoryBase = 0x068;
inline constexpr std::uint32_t kProtectedLowMemoryLimit = 0x06c;
inline constexpr std::uint32_t kProtectedHighMemoryBase = 0x070;
inline constexpr std::uint32_t kProtectedHighMemoryLimit = 0x078;
inline constexpr std::uint32_t kInvalidationQueueHead = 0x080;
inline constexpr std::uint32_t kInvalidationQueueTail = 0x088;
inline constexpr std::uint32_t kInvalidationQueueAddress = 0x090;
inline constexpr std::uint32_t kInvalidationCompletionStatus = 0x09c;
inline constexpr std::uint32_t kInvalidationEventControl = 0x0a0;
inline constexpr std::uint32_t kInvalidationEventData = 0x0a4;
inline constexpr std::uint32_t kInvalidationEventAddress = 0x0a8;
inline constexpr std::uint32_t kInvalidationEventUpperAddress = 0x0ac;
inline constexpr std::uint32_t kInterruptRemappingTableAddress = 0x0b8;
// ECAP.IRO places these two; 0x0f0 is the last 16 bytes that no other register claims below the
// memory-type registers.
inline constexpr std::uint32_t kInvalidateAddress = 0x0f0;
inline constexpr std::uint32_t kIotlbInvalidate = 0x0f8;
// CAP.FRO places these; first address after the memory-type registers.
inline constexpr std::uint32_t kFaultRecording = 0x220;
}  // namespace offset

inline constexpr std::uint32_t kFaultRecordBytes = 16;
// Registers that CAP.NFR reports. A burst of faults from several devices fits; Linux walks all of
// them in its handler, so more would only cost it time.
inline constexpr std::uint32_t kFaultRecords = 8;

// VER: version 1.0.
inline constexpr std::uint32_t kVersion10 = 0x10;

// GCMD and GSTS have the same layout: command and status of one function share a bit.
namespace global {
inline constexpr std::uint32_t kTranslation = 1u << 31;              // TE, TES
inline constexpr std::uint32_t kRootTablePointer = 1u << 30;         // SRTP, RTPS
inline constexpr std::uint32_t kQueuedInvalidation = 1u << 26;       // QIE, QIES
inline constexpr std::uint32_t kInterruptRemapping = 1u << 25;       // IRE, IRES
inline constexpr std::uint32_t kInterruptTablePointer = 1u << 24;    // SIRTP, IRTPS
inline constexpr std::uint32_t kCompatibilityInterrupts = 1u << 23;  // CFI, CFIS
}  // namespace global

namespace root_table_address {
inline constexpr std::uint64_t kAddress = ~std::uint64_t{0xfff};  // RTA, limited by address width
}  // namespace root_table_address

namespace interrupt_table_address {
inline constexpr std::uint64_t kAddress = ~std::uint64_t{0xfff};  // IRTA, limited by address width
inline constexpr std::uint64_t kExtendedMode = 1u << 11;          // EIME
inline constexpr std::uint64_t kSize = 0xf;                       // S: 2^(S+1) entries
}  // namespace interrupt_table_address

namespace context_command {
inline constexpr std::uint64_t kInvalidate = std::uint64_t{1} << 63;  // ICC
inline constexpr unsigned kRequestedShift = 61;                       // CIRG, 2 bits
inline constexpr unsigned kActualShift = 59;                          // CAIG, 2 bits
inline constexpr unsigned kFunctionMaskShift = 32;                    // FM, 2 bits
inline constexpr unsigned kSourceShift = 16;                          // SID, 16 bits
inline constexpr unsigned kDomainShift = 0;                           // DID, 16 bits
}  // namespace context_command

namespace iotlb_invalidate {
inline constexpr std::uint64_t kInvalidate = std::uint64_t{1} << 63;   // IVT
inline constexpr unsigned kRequestedShift = 60;                        // IIRG, 2 bits
inline constexpr unsigned kActualShift = 57;                           // IAIG, 2 bits
inline constexpr std::uint64_t kDrainReads = std::uint64_t{1} << 49;   // DR
inline constexpr std::uint64_t kDrainWrites = std::uint64_t{1} << 48;  // DW
inline constexpr unsigned kDomainShift = 32;                           // DID, 16 bits
}  // namespace iotlb_invalidate

namespace invalidate_address {
inline constexpr std::uint64_t kAddress = ~std::uint64_t{0xfff};
inline constexpr std::uint64_t kLeafOnly = 1u << 6;  // IH
inline constexpr std::uint64_t kAddressMask = 0x3f;  // AM
}  // namespace invalidate_address

// Granularity in CIRG, CAIG, IIRG, IAIG and in the G field of the matching descriptors.
namespace granularity {
inline constexpr unsigned kReserved = 0;
inline constexpr unsigned kGlobal = 1;
inline constexpr unsigned kDomain = 2;
inline constexpr unsigned kDeviceOrPage = 3;
}  // namespace granularity

namespace fault_status {
inline constexpr std::uint32_t kOverflow = 1u << 0;         // PFO
inline constexpr std::uint32_t kPending = 1u << 1;          // PPF: some recording register has F
inline constexpr std::uint32_t kQueueError = 1u << 4;       // IQE
inline constexpr std::uint32_t kCompletionError = 1u << 5;  // ICE
inline constexpr std::uint32_t kTimeoutError = 1u << 6;     // ITE
inline constexpr unsigned kRecordIndexShift = 8;            // FRI, 8 bits
inline constexpr std::uint32_t kRecordIndex = 0xffu << kRecordIndexShift;
}  // namespace fault_status

// FECTL and IECTL.
namespace event_control {
inline constexpr std::uint32_t kMask = 1u << 31;     // IM
inline constexpr std::uint32_t kPending = 1u << 30;  // IP
}  // namespace event_control

// FEADDR and IEADDR: message addresses are doubleword-aligned.
inline constexpr std::uint32_t kEventAddress = ~0x3u;

// The two halves of a fault recording register.
namespace fault_record {
// Lower half: page of the faulting address, or the interrupt index in bits 63:48.
inline constexpr std::uint64_t kAddress = ~std::uint64_t{0xfff};  // FI
inline constexpr unsigned kInterruptIndexShift = 48;
// Upper half.
inline constexpr std::uint64_t kFault = std::uint64_t{1} << 63;  // F
inline constexpr std::uint64_t kRead = std::uint64_t{1} << 62;   // T1: 1 read, 0 write
inline constexpr unsigned kReasonShift = 32;                     // FR, 8 bits
inline constexpr unsigned kSourceShift = 0;                      // SID, 16 bits
}  // namespace fault_record

namespace invalidation_queue {
inline constexpr std::uint64_t kAddress = ~std::uint64_t{0xfff};  // IQA, limited by address width
inline constexpr std::uint64_t kDescriptor256 = 1u << 11;         // DW, reserved without SMTS
inline constexpr std::uint64_t kSize = 0x7;                       // QS: 2^(QS+8) descriptors
inline constexpr std::uint64_t kOffset = 0x7fff0;                 // QH, QT: byte offset 18:4
}  // namespace invalidation_queue

namespace invalidation_completion {
inline constexpr std::uint32_t kWaitComplete = 1u << 0;  // IWC
}  // namespace invalidation_completion

namespace capability {
inline constexpr unsigned kDomainsShift = 0;                                     // ND
inline constexpr std::uint64_t kCachingMode = std::uint64_t{1} << 7;             // CM
inline constexpr unsigned kAddressWidthsShift = 8;                               // SAGAW
inline constexpr unsigned kMaximumAddressWidthShift = 16;                        // MGAW
inline constexpr std::uint64_t kZeroLengthRead = std::uint64_t{1} << 22;         // ZLR
inline constexpr unsigned kFaultRecordOffsetShift = 24;                          // FRO, / 16
inline constexpr unsigned kLargePagesShift = 34;                                 // SLLPS
inline constexpr std::uint64_t kPageSelective = std::uint64_t{1} << 39;          // PSI
inline constexpr unsigned kFaultRecordsShift = 40;                               // NFR, minus 1
inline constexpr unsigned kMaximumAddressMaskShift = 48;                         // MAMV
inline constexpr std::uint64_t kWriteDraining = std::uint64_t{1} << 54;          // DWD
inline constexpr std::uint64_t kReadDraining = std::uint64_t{1} << 55;           // DRD
inline constexpr std::uint64_t kInterruptTableFlushes = std::uint64_t{1} << 62;  // ESIRTPS
inline constexpr std::uint64_t kRootTableFlushes = std::uint64_t{1} << 63;       // ESRTPS
}  // namespace capability

namespace extended_capability {
inline constexpr std::uint64_t kPageWalkCoherency = 1u << 0;      // C
inline constexpr std::uint64_t kQueuedInvalidation = 1u << 1;     // QI
inline constexpr std::uint64_t kDeviceTlb = 1u << 2;              // DT
inline constexpr std::uint64_t kInterruptRemapping = 1u << 3;     // IR
inline constexpr std::uint64_t kExtendedInterruptMode = 1u << 4;  // EIM
inline constexpr std::uint64_t kPassThrough = 1u << 6;            // PT
inline constexpr std::uint64_t kSnoopControl = 1u << 7;           // SC
inline constexpr unsigned kIotlbOffsetShift = 8;                  // IRO, / 16
inline constexpr unsigned kMaximumHandleMaskShift = 20;           // MHMV
}  // namespace extended_capability

}  // namespace umbra::vtd::spec
