// SPDX-License-Identifier: GPL-2.0-or-later
//
// Layout of the 128-bit descriptors of the invalidation queue (VT-d specification 6.5.2). `low` is
// bits 63:0 and `high` bits 127:64 of a descriptor; masks named kReserved... must be zero in it.
// Layout only; descriptor.cc decodes.
#pragma once

#include <cstdint>

namespace umbra::vtd::spec {

struct Descriptor {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
};
static_assert(sizeof(Descriptor) == 16, "read from guest memory in place");

namespace descriptor {

// The type is in bits 3:0, its extension in bits 11:9. No 128-bit descriptor of legacy mode uses
// the extension.
inline constexpr std::uint64_t kTypeMask = 0xe0f;

inline constexpr std::uint64_t kContextCache = 0x1;
inline constexpr std::uint64_t kIotlb = 0x2;
inline constexpr std::uint64_t kDeviceTlb = 0x3;
inline constexpr std::uint64_t kInterruptEntryCache = 0x4;
inline constexpr std::uint64_t kWait = 0x5;

namespace context_cache {
inline constexpr unsigned kGranularityShift = 4;    // G, 2 bits
inline constexpr unsigned kDomainShift = 16;        // DID, 16 bits
inline constexpr unsigned kSourceShift = 32;        // SID, 16 bits
inline constexpr unsigned kFunctionMaskShift = 48;  // FM, 2 bits
inline constexpr std::uint64_t kReservedLow = 0xfffc'0000'0000'f1c0;
inline constexpr std::uint64_t kReservedHigh = ~std::uint64_t{0};
}  // namespace context_cache

namespace iotlb {
inline constexpr unsigned kGranularityShift = 4;  // G, 2 bits
// Bits 6 (DW) and 7 (DR) ask for draining.
inline constexpr unsigned kDomainShift = 16;  // DID, 16 bits
inline constexpr std::uint64_t kReservedLow = 0xffff'ffff'0000'f100;
// Upper half as in the Invalidate Address register: spec::invalidate_address.
inline constexpr std::uint64_t kReservedHigh = 0xf80;
}  // namespace iotlb

namespace device_tlb {
// Bits 20:16 (MIP) are a pacing hint. PFSID (15:12 and 63:52) is reserved without ECAP.DIT.
inline constexpr unsigned kSourceShift = 32;  // SID, 16 bits
inline constexpr std::uint64_t kReservedLow = 0xffff'0000'ffe0'f1f0;
inline constexpr std::uint64_t kSize = 1u << 0;  // S: address bits from 12 up encode the size
inline constexpr std::uint64_t kAddress = ~std::uint64_t{0xfff};
inline constexpr std::uint64_t kReservedHigh = 0xffe;
}  // namespace device_tlb

namespace interrupt_entry_cache {
inline constexpr std::uint64_t kIndexSelective = 1u << 4;  // G
inline constexpr unsigned kIndexMaskShift = 27;            // IM, 5 bits
inline constexpr unsigned kIndexShift = 32;                // IIDX, 16 bits
inline constexpr std::uint64_t kReservedLow = 0xffff'0000'07ff'f1e0;
inline constexpr std::uint64_t kReservedHigh = ~std::uint64_t{0};
}  // namespace interrupt_entry_cache

namespace wait {
inline constexpr std::uint64_t kInterrupt = 1u << 4;    // IF
inline constexpr std::uint64_t kStatusWrite = 1u << 5;  // SW
inline constexpr std::uint64_t kFence = 1u << 6;        // FN
inline constexpr unsigned kStatusDataShift = 32;        // 32 bits
// Bit 7 (PD) is reserved without page request services.
inline constexpr std::uint64_t kReservedLow = 0xffff'f180;
inline constexpr std::uint64_t kStatusAddress = ~std::uint64_t{0x3};
inline constexpr std::uint64_t kReservedHigh = 0x3;
}  // namespace wait

}  // namespace descriptor
}  // namespace umbra::vtd::spec
