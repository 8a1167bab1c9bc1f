// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/capabilities.h"

#include <functional>
#include <initializer_list>
#include <numeric>

#include "plugin/vtd/spec/registers.h"

namespace umbra::vtd {
namespace {

// The register that has each of `fields`.
std::uint64_t joined(std::initializer_list<std::uint64_t> fields) {
    return std::accumulate(fields.begin(), fields.end(), std::uint64_t{0}, std::bit_or<>());
}

// CAP.ND: 2^(4 + 2 * ND) domains.
constexpr std::uint64_t kDomains64K = 6;
// CAP.SAGAW: bit 1 for 39 bits (3 levels), bit 2 for 48 bits (4 levels).
constexpr std::uint64_t kWidth39 = 0b00010;
constexpr std::uint64_t kWidth48 = 0b00100;
// CAP.SSLPS: bit 0 for 2 MiB, bit 1 for 1 GiB.
constexpr std::uint64_t kLargePages2MAnd1G = 0b0011;
// Registers are placed in units of 16 bytes.
constexpr std::uint32_t kPlacementUnit = 16;

// CAP, field by field (specification 11.4.2):
//
//   ND       6: 64 Ki domains, so a domain-id is 16 bits and none of them is reserved.
//   AFL      0: faults go to recording registers, never to a log in memory.
//   RWBF     0: nothing is buffered between the guest's stores and the unit's loads.
//   PLMR     0, PHMR 0: no protected memory regions; the PMEN registers read 0.
//   CM       as chosen.
//   SAGAW    39 bits always, 48 bits if the address width is 48; none without DMA translation, by
//            which software knows that there is none.
//   MGAW     address width minus 1.
//   ZLR      0: an emulated device's zero-length read of a write-only page could be let through,
//            a passed-through one's is the host IOMMU's to judge. So software must give read
//            permission where it expects them, and the answer is the same for both.
//   FRO      where the fault recording registers are, in units of 16 bytes.
//   SSLPS    2 MiB and 1 GiB leaves.
//   PSI      1, MAMV 18.
//   NFR      number of fault recording registers minus 1.
//   DWD      0, DRD 0: an emulated device may still hold a pointer into guest memory that it
//            got before an invalidation. Descriptors that ask for draining are accepted, as the
//            specification demands, and drain nothing.
//   FS1GP    0, FS5LP 0: no first-stage translation in legacy mode.
//   PI       0: no posted interrupts.
//   ECMDS    0: no enhanced commands.
//   ESIRTPS  1, ESRTPS 1: setting a table pointer drops everything cached from the old table, in
//            the unit and, through its observer, in the shadow.
std::uint64_t build_cap(const UnitProperties& properties) {
    using Cap = spec::Capability;
    const std::uint64_t widths =
        properties.dma_translation ? kWidth39 | (properties.address_width == 48 ? kWidth48 : 0) : 0;
    return joined({
        Cap::Domains::place(kDomains64K),
        Cap::CachingMode::place(properties.caching_mode),
        Cap::AddressWidths::place(widths),
        Cap::MaximumAddressWidth::place(properties.address_width - 1),
        Cap::ZeroLengthRead::place(false),
        Cap::FaultRecordOffset::place(spec::FaultRecord::kOffset / kPlacementUnit),
        Cap::LargePages::place(kLargePages2MAnd1G),
        Cap::PageSelective::place(true),
        Cap::FaultRecords::place(spec::FaultRecord::kCount - 1),
        Cap::MaximumAddressMask::place(kMaximumAddressMask),
        Cap::WriteDraining::place(false),
        Cap::ReadDraining::place(false),
        Cap::InterruptTableFlushes::place(properties.interrupt_remapping),
        Cap::RootTableFlushes::place(true),
    });
}

// ECAP, field by field (specification 11.4.3). Fields that are not named belong to scalable mode,
// PASIDs, page requests, nesting, memory types or performance counters, and are 0.
//
//   C        1: tables are read through the CPU's caches, so software need not flush them.
//   QI       1.
//   DT       as chosen.
//   IR, EIM  as chosen.
//   PT       as chosen.
//   SC       as chosen. All DMA is coherent, so leaf entries' SNP bit has nothing to change.
//   IRO      where IVA and IOTLB are, in units of 16 bytes.
//   MHMV     15: one interrupt entry invalidation covers up to 2^15 entries; 0 without interrupt
//            remapping.
std::uint64_t build_ecap(const UnitProperties& properties) {
    using Ecap = spec::ExtendedCapability;
    const unsigned handle_mask = properties.interrupt_remapping ? kMaximumHandleMask : 0;
    return joined({
        Ecap::PageWalkCoherency::place(true),
        Ecap::QueuedInvalidation::place(true),
        Ecap::DeviceTlb::place(properties.device_iotlb),
        Ecap::InterruptRemapping::place(properties.interrupt_remapping),
        Ecap::ExtendedInterruptMode::place(properties.extended_interrupt_mode),
        Ecap::PassThrough::place(properties.pass_through),
        Ecap::SnoopControl::place(properties.snoop_control),
        Ecap::IotlbOffset::place(spec::InvalidateAddress::kOffset / kPlacementUnit),
        Ecap::MaximumHandleMask::place(handle_mask),
    });
}

}  // namespace

const char* UnitProperties::error() const {
    if (address_width != 39 && address_width != 48) {
        return "the address width must be 39 or 48 bits";
    }
    if (host_address_width < 32 || host_address_width > 52) {
        return "the host address width must lie between 32 and 52 bits";
    }
    if (!dma_translation && !interrupt_remapping) {
        return "dma-translation=off leaves interrupt remapping alone, and intremap is off: leave the "
               "unit out, or start it with intremap=on";
    }
    if (extended_interrupt_mode && !interrupt_remapping) {
        return "extended interrupt mode needs interrupt remapping";
    }
    return nullptr;
}

bool Capabilities::device_tlb() const {
    return spec::ExtendedCapability::DeviceTlb::get(ecap);
}

bool Capabilities::interrupt_remapping() const {
    return spec::ExtendedCapability::InterruptRemapping::get(ecap);
}

bool Capabilities::extended_interrupt_mode() const {
    return spec::ExtendedCapability::ExtendedInterruptMode::get(ecap);
}

bool Capabilities::zero_length_reads() const {
    return spec::Capability::ZeroLengthRead::get(cap);
}

Capabilities capabilities_of(const UnitProperties& properties) {
    return {.cap = build_cap(properties),
            .ecap = build_ecap(properties),
            .host_address_mask = ~spec::above_address_width(properties.host_address_width)};
}

}  // namespace umbra::vtd
