// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/descriptor.h"

#include <bit>

#include "plugin/vtd/spec/registers.h"

namespace umbra::vtd {
namespace {

using spec::Descriptor;

// `width` bits of `value` from bit `shift` up.
constexpr std::uint64_t field(std::uint64_t value, unsigned shift, unsigned width) {
    return value >> shift & ((std::uint64_t{1} << width) - 1);
}

constexpr bool has_reserved(const Descriptor& descriptor, std::uint64_t low, std::uint64_t high) {
    return (descriptor.low & low) != 0 || (descriptor.high & high) != 0;
}

DecodedDescriptor decode_context_cache(const Descriptor& descriptor) {
    using namespace spec::descriptor::context_cache;
    if (has_reserved(descriptor, kReservedLow, kReservedHigh)) {
        return QueueError::reserved_field;
    }
    const auto domain = static_cast<DomainId>(field(descriptor.low, kDomainShift, 16));
    switch (field(descriptor.low, kGranularityShift, 2)) {
        case spec::granularity::kGlobal:
            return Invalidation::context_global();
        case spec::granularity::kDomain:
            return Invalidation::context_domain(domain);
        case spec::granularity::kDeviceOrPage:
            return Invalidation::context_device(
                domain,
                SourceMatch(
                    SourceId(static_cast<std::uint16_t>(field(descriptor.low, kSourceShift, 16))),
                    static_cast<unsigned>(field(descriptor.low, kFunctionMaskShift, 2))));
        default:
            return QueueError::reserved_field;
    }
}

DecodedDescriptor decode_iotlb(const Descriptor& descriptor) {
    using namespace spec::descriptor::iotlb;
    if (has_reserved(descriptor, kReservedLow, kReservedHigh)) {
        return QueueError::reserved_field;
    }
    const auto domain = static_cast<DomainId>(field(descriptor.low, kDomainShift, 16));
    switch (field(descriptor.low, kGranularityShift, 2)) {
        case spec::granularity::kGlobal:
            return Invalidation::iotlb_global();
        case spec::granularity::kDomain:
            return Invalidation::iotlb_domain(domain);
        case spec::granularity::kDeviceOrPage:
            if (const auto pages = decode_pages(domain, descriptor.high)) {
                return *pages;
            }
            return QueueError::reserved_field;
        default:
            return QueueError::reserved_field;
    }
}

// Address bits from 12 up encode the size as in a PCIe ATS invalidate request: the lowest clear bit
// is followed upwards by the address proper. All set means everything.
IovaRange device_tlb_range(std::uint64_t high) {
    using namespace spec::descriptor::device_tlb;
    const std::uint64_t address = high & kAddress;
    if ((high & kSize) == 0) {
        return {Iova(address), Iova(address + kPageSize - 1)};
    }
    const auto ones = static_cast<unsigned>(std::countr_one(address >> kPageShift));
    const unsigned size_shift = kPageShift + ones + 1;
    if (size_shift >= 64) {
        return IovaRange::everything();
    }
    const std::uint64_t size = std::uint64_t{1} << size_shift;
    const Iova first = Iova(address).align_down(size);
    return {first, first + (size - 1)};
}

DecodedDescriptor decode_device_tlb(const Descriptor& descriptor) {
    using namespace spec::descriptor::device_tlb;
    if (has_reserved(descriptor, kReservedLow, kReservedHigh)) {
        return QueueError::reserved_field;
    }
    const SourceId source(static_cast<std::uint16_t>(field(descriptor.low, kSourceShift, 16)));
    return Invalidation{.kind = InvalidationKind::device_tlb,
                        .devices = SourceMatch(source),
                        .range = device_tlb_range(descriptor.high)};
}

DecodedDescriptor decode_interrupt_entry_cache(const Descriptor& descriptor) {
    using namespace spec::descriptor::interrupt_entry_cache;
    if (has_reserved(descriptor, kReservedLow, kReservedHigh)) {
        return QueueError::reserved_field;
    }
    if ((descriptor.low & kIndexSelective) == 0) {
        return Invalidation{.kind = InvalidationKind::interrupt_global};
    }
    const auto index_mask = static_cast<unsigned>(field(descriptor.low, kIndexMaskShift, 5));
    if (index_mask > kMaximumHandleMask) {
        return QueueError::reserved_field;
    }
    const auto index = static_cast<std::uint16_t>(field(descriptor.low, kIndexShift, 16));
    return Invalidation{.kind = InvalidationKind::interrupt_index,
                        .first_index = static_cast<std::uint16_t>(index & ~0U << index_mask),
                        .index_mask = index_mask};
}

DecodedDescriptor decode_wait(const Descriptor& descriptor) {
    using namespace spec::descriptor::wait;
    if (has_reserved(descriptor, kReservedLow, kReservedHigh)) {
        return QueueError::reserved_field;
    }
    return WaitRequest{
        .status_write = (descriptor.low & kStatusWrite) != 0,
        .interrupt = (descriptor.low & kInterrupt) != 0,
        .fence = (descriptor.low & kFence) != 0,
        .status_data = static_cast<std::uint32_t>(descriptor.low >> kStatusDataShift),
        .status_address = Gpa(descriptor.high & kStatusAddress),
    };
}

}  // namespace

std::optional<Invalidation> decode_pages(DomainId domain, std::uint64_t address_fields) {
    using namespace spec::invalidate_address;
    const auto address_mask = static_cast<unsigned>(address_fields & kAddressMask);
    if (address_mask > kMaximumAddressMask) {
        return std::nullopt;
    }
    // Address bits that the mask covers are ignored.
    return Invalidation::iotlb_page(domain,
                                    IovaRange::pages(Iova(address_fields & kAddress), address_mask),
                                    (address_fields & kLeafOnly) != 0);
}

DecodedDescriptor decode(const Descriptor& descriptor, const Capabilities& capabilities) {
    switch (descriptor.low & spec::descriptor::kTypeMask) {
        case spec::descriptor::kContextCache:
            return decode_context_cache(descriptor);
        case spec::descriptor::kIotlb:
            return decode_iotlb(descriptor);
        case spec::descriptor::kDeviceTlb:
            if (capabilities.device_tlb()) {
                return decode_device_tlb(descriptor);
            }
            break;
        case spec::descriptor::kInterruptEntryCache:
            if (capabilities.interrupt_remapping()) {
                return decode_interrupt_entry_cache(descriptor);
            }
            break;
        case spec::descriptor::kWait:
            return decode_wait(descriptor);
        default:
            break;
    }
    return QueueError::bad_type;
}

}  // namespace umbra::vtd
