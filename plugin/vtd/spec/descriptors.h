// SPDX-License-Identifier: GPL-2.0-or-later
//
// Layout of the 128-bit descriptors of the invalidation queue (VT-d specification 6.5.2). The name
// in the comment of a field is the specification's. descriptor.cc decodes.
#pragma once

#include <cstdint>

#include "plugin/vtd/spec/field.h"
#include "plugin/vtd/spec/registers.h"
#include "plugin/vtd/types.h"

namespace umbra::vtd::spec {

using Descriptor = Quads;

// The type has seven bits in two pieces. Values above 5 belong to scalable mode.
struct DescriptorType {
    using Upper = Field<11, 9, unsigned>;
    using Lower = Field<3, 0, unsigned>;

    static constexpr unsigned get(const Descriptor& descriptor) {
        return Upper::get(descriptor) << 4 | Lower::get(descriptor);
    }
};

// `Fields` are those besides the type.
template <class... Fields>
using DescriptorLayout = Layout<128, DescriptorType::Upper, DescriptorType::Lower, Fields...>;

// Context-cache Invalidate Descriptor, 6.5.2.1
struct ContextCacheDescriptor {
    static constexpr unsigned kType = 1;

    using FunctionMask = Field<49, 48, unsigned>;        // FM
    using Source = Field<47, 32, SourceId>;              // SID
    using Domain = Field<31, 16, DomainId>;              // DID
    using Granularity = Field<5, 4, spec::Granularity>;  // G
    using All = DescriptorLayout<FunctionMask, Source, Domain, Granularity>;
};

// IOTLB Invalidate Descriptor, 6.5.2.3. Bits 127:64 are laid out as the Invalidate Address
// register.
struct IotlbDescriptor {
    static constexpr unsigned kType = 2;

    using Address = AddressField<127, 76, Iova>;         // ADDR
    using LeafOnly = Flag<70>;                           // IH
    using AddressMask = Field<69, 64, unsigned>;         // AM
    using Domain = Field<31, 16, DomainId>;              // DID
    using DrainReads = Flag<7>;                          // DR
    using DrainWrites = Flag<6>;                         // DW
    using Granularity = Field<5, 4, spec::Granularity>;  // G
    using All = DescriptorLayout<Address, LeafOnly, AddressMask, Domain, DrainReads, DrainWrites,
                                 Granularity>;
};

// Device-TLB Invalidate Descriptor, 6.5.2.5. PFSID (15:12 and 63:52) is reserved without ECAP.DIT.
struct DeviceTlbDescriptor {
    static constexpr unsigned kType = 3;

    using Address = AddressField<127, 76, Iova>;  // ADDR
    using Size = Flag<64>;                        // S: the low bits of the address encode the size
    using Source = Field<47, 32, SourceId>;       // SID
    using MaximumPending = Field<20, 16>;         // MIP, a hint for pacing
    using All = DescriptorLayout<Address, Size, Source, MaximumPending>;
};

// Interrupt Entry Cache Invalidate Descriptor, 6.5.2.7
struct InterruptEntryCacheDescriptor {
    static constexpr unsigned kType = 4;

    using Index = Field<47, 32, std::uint16_t>;  // IIDX
    using IndexMask = Field<31, 27, unsigned>;   // IM
    using IndexSelective = Flag<4>;              // G
    using All = DescriptorLayout<Index, IndexMask, IndexSelective>;
};

// Invalidation Wait Descriptor, 6.5.2.8. PD (7) is reserved without page requests.
struct WaitDescriptor {
    static constexpr unsigned kType = 5;

    using StatusAddress = AddressField<127, 66, Gpa>;
    using StatusData = Field<63, 32, std::uint32_t>;
    using Fence = Flag<6>;        // FN
    using StatusWrite = Flag<5>;  // SW
    using Interrupt = Flag<4>;    // IF
    using All = DescriptorLayout<StatusAddress, StatusData, Fence, StatusWrite, Interrupt>;
};

}  // namespace umbra::vtd::spec
