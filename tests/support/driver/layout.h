// SPDX-License-Identifier: GPL-2.0-or-later
//
// The VT-d register and table layout as a guest's driver knows it (Intel Virtualization Technology
// for Directed I/O specification, chapters 7 to 11). The numbers come from the specification and
// not from plugin/vtd/spec/: a wrong number there fails a test. Layout only, no behaviour.
#pragma once

#include <cstdint>

#include "plugin/vtd/types.h"

namespace umbra::driver {

// Register offsets (11.4).
enum Register : std::uint32_t {
    kVersion = 0x00,
    kCapability = 0x08,
    kExtendedCapability = 0x10,
    kGlobalCommand = 0x18,
    kGlobalStatus = 0x1c,
    kRootTableAddress = 0x20,
    kContextCommand = 0x28,
    kFaultStatus = 0x34,
    kFaultEventControl = 0x38,
    kFaultEventData = 0x3c,
    kFaultEventAddress = 0x40,
    kFaultEventUpperAddress = 0x44,
    kQueueHead = 0x80,
    kQueueTail = 0x88,
    kQueueAddress = 0x90,
    kCompletionStatus = 0x9c,
    kCompletionEventControl = 0xa0,
    kCompletionEventData = 0xa4,
    kCompletionEventAddress = 0xa8,
    kCompletionEventUpperAddress = 0xac,
    kInterruptTableAddress = 0xb8,
};

// Capability register (11.4.2).
inline constexpr std::uint64_t kCapCachingMode = 1ull << 7;
inline constexpr std::uint64_t kCapWidth39 = 1ull << 9;
inline constexpr std::uint64_t kCapWidth48 = 1ull << 10;
inline constexpr std::uint64_t kCapLeaf2M = 1ull << 34;
inline constexpr std::uint64_t kCapLeaf1G = 1ull << 35;
inline constexpr std::uint64_t kCapPageSelective = 1ull << 39;
// Where the first fault recording register is, in bytes from the unit's base, and how many follow.
constexpr std::uint32_t fault_record_offset(std::uint64_t capability) {
    return static_cast<std::uint32_t>((capability >> 24 & 0x3ff) * 16);
}
constexpr unsigned fault_record_count(std::uint64_t capability) {
    return static_cast<unsigned>(capability >> 40 & 0xff) + 1;
}

// Extended capability register (11.4.3).
inline constexpr std::uint64_t kEcapQueuedInvalidation = 1ull << 1;
inline constexpr std::uint64_t kEcapInterruptRemapping = 1ull << 3;
inline constexpr std::uint64_t kEcapExtendedInterruptMode = 1ull << 4;
inline constexpr std::uint64_t kEcapPassThrough = 1ull << 6;
// Where the address register of the IOTLB is; the invalidate register follows 8 bytes above.
constexpr std::uint32_t iotlb_register_offset(std::uint64_t extended_capability) {
    return static_cast<std::uint32_t>((extended_capability >> 8 & 0x3ff) * 16);
}

// Global command and status registers (11.4.4).
inline constexpr std::uint32_t kTranslationEnable = 1u << 31;
inline constexpr std::uint32_t kSetRootTable = 1u << 30;
inline constexpr std::uint32_t kQueueEnable = 1u << 26;
inline constexpr std::uint32_t kInterruptRemappingEnable = 1u << 25;
inline constexpr std::uint32_t kSetInterruptTable = 1u << 24;
inline constexpr std::uint32_t kCompatibilityInterrupts = 1u << 23;

// Fault status register (11.4.7.1).
inline constexpr std::uint32_t kFaultOverflow = 1u << 0;
inline constexpr std::uint32_t kFaultPending = 1u << 1;
inline constexpr std::uint32_t kQueueError = 1u << 4;

// Event control registers (11.4.7.2).
inline constexpr std::uint32_t kEventMask = 1u << 31;
inline constexpr std::uint32_t kEventPending = 1u << 30;

// Completion status register (11.4.9.4).
inline constexpr std::uint32_t kCompletionPending = 1u << 0;

// Fault recording registers (11.4.7.6), of 16 bytes each. Upper half; the lower half is the
// address.
inline constexpr std::uint32_t kFaultRecordBytes = 16;
inline constexpr std::uint64_t kRecordFault = 1ull << 63;
inline constexpr std::uint64_t kRecordRead = 1ull << 62;
constexpr unsigned record_reason(std::uint64_t high) {
    return static_cast<unsigned>(high >> 32 & 0xff);
}
constexpr std::uint16_t record_source(std::uint64_t high) {
    return static_cast<std::uint16_t>(high & 0xffff);
}

// Fault reasons (7.1.3, legacy mode).
enum class Reason : std::uint8_t {
    root_not_present = 0x1,
    context_not_present = 0x2,
    context_invalid = 0x3,
    address_beyond_width = 0x4,
    write_denied = 0x5,
    read_denied = 0x6,
    paging_entry_access = 0x7,
    root_table_access = 0x8,
    context_table_access = 0x9,
    root_reserved = 0xa,
    context_reserved = 0xb,
    paging_entry_reserved = 0xc,
    interrupt_request_reserved = 0x20,
    interrupt_index_beyond_table = 0x21,
    interrupt_not_present = 0x22,
    interrupt_table_access = 0x23,
    interrupt_entry_reserved = 0x24,
    interrupt_compatibility_blocked = 0x25,
    interrupt_source_rejected = 0x26,
};

// Root entries (9.1) and context entries (9.3), of 16 bytes each; P is bit 0 of both.
inline constexpr std::uint64_t kTableEntryBytes = 16;
inline constexpr std::uint64_t kPresent = 1ull << 0;
inline constexpr std::uint64_t kContextFaultsDisabled = 1ull << 1;
inline constexpr unsigned kContextTypeShift = 2;
// Upper half: address width (levels of the table, minus 2) and domain-id.
constexpr std::uint64_t context_high(std::uint16_t domain, unsigned levels) {
    return std::uint64_t{domain} << 8 | (levels - 2);
}
enum class TranslationType : std::uint8_t { second_stage = 0, device_tlb = 1, pass_through = 2 };

// Second-stage entries (9.8).
inline constexpr std::uint64_t kEntryRead = 1ull << 0;
inline constexpr std::uint64_t kEntryWrite = 1ull << 1;
inline constexpr std::uint64_t kEntryReadWrite = kEntryRead | kEntryWrite;
inline constexpr std::uint64_t kEntryLeaf = 1ull << 7;
inline constexpr std::uint64_t kEntryAddress = 0x000f'ffff'ffff'f000;
// Which of the 512 entries of a table leads to `iova`. Level 1 is the lowest.
constexpr unsigned table_index(Iova iova, unsigned level) {
    return static_cast<unsigned>(iova.value() >> (12 + 9 * (level - 1)) & 0x1ff);
}
// A present entry that points to a table.
constexpr bool is_table(std::uint64_t entry) {
    return (entry & kEntryReadWrite) != 0 && (entry & kEntryLeaf) == 0;
}

// Interrupt-remapping table address register (11.4.11): 2^(S+1) entries.
inline constexpr std::uint64_t kInterruptTableExtendedMode = 1ull << 11;

}  // namespace umbra::driver
