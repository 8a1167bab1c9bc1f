// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/descriptor.h"

#include <bit>

namespace umbra::vtd {
namespace {

using spec::Descriptor;
using spec::Granularity;

DecodedDescriptor decode_context_cache(const Descriptor& descriptor) {
    using Fields = spec::ContextCacheDescriptor;
    if (Fields::All::has_reserved(descriptor)) {
        return QueueError::reserved_field;
    }
    const DomainId domain = Fields::Domain::get(descriptor);
    switch (Fields::Granularity::get(descriptor)) {
        case Granularity::global:
            return Invalidation::context_global();
        case Granularity::domain:
            return Invalidation::context_domain(domain);
        case Granularity::selective:
            return Invalidation::context_device(domain,
                                                SourceMatch(Fields::Source::get(descriptor),
                                                            Fields::FunctionMask::get(descriptor)));
        case Granularity::reserved:
            break;
    }
    return QueueError::reserved_field;
}

DecodedDescriptor decode_iotlb(const Descriptor& descriptor) {
    using Fields = spec::IotlbDescriptor;
    if (Fields::All::has_reserved(descriptor)) {
        return QueueError::reserved_field;
    }
    const DomainId domain = Fields::Domain::get(descriptor);
    switch (Fields::Granularity::get(descriptor)) {
        case Granularity::global:
            return Invalidation::iotlb_global();
        case Granularity::domain:
            return Invalidation::iotlb_domain(domain);
        case Granularity::selective:
            if (Fields::AddressMask::get(descriptor) > kMaximumAddressMask) {
                break;
            }
            return Invalidation::iotlb_page(domain,
                                            IovaRange::pages(Fields::Address::get(descriptor),
                                                             Fields::AddressMask::get(descriptor)),
                                            Fields::LeafOnly::get(descriptor));
        case Granularity::reserved:
            break;
    }
    return QueueError::reserved_field;
}

// With S set, address bits from 12 up encode the size as in a PCIe ATS invalidate request: the
// address proper begins above the lowest clear bit. All bits set means every address.
IovaRange device_tlb_range(const Descriptor& descriptor) {
    using Fields = spec::DeviceTlbDescriptor;
    const Iova address = Fields::Address::get(descriptor);
    if (!Fields::Size::get(descriptor)) {
        return IovaRange::pages(address, 0);
    }
    const auto ones = static_cast<unsigned>(std::countr_one(address.value() / kPageSize));
    return IovaRange::pages(address, ones + 1);
}

DecodedDescriptor decode_device_tlb(const Descriptor& descriptor) {
    using Fields = spec::DeviceTlbDescriptor;
    if (Fields::All::has_reserved(descriptor)) {
        return QueueError::reserved_field;
    }
    return Invalidation{.kind = InvalidationKind::device_tlb,
                        .devices = SourceMatch(Fields::Source::get(descriptor)),
                        .range = device_tlb_range(descriptor)};
}

DecodedDescriptor decode_interrupt_entry_cache(const Descriptor& descriptor) {
    using Fields = spec::InterruptEntryCacheDescriptor;
    if (Fields::All::has_reserved(descriptor)) {
        return QueueError::reserved_field;
    }
    if (!Fields::IndexSelective::get(descriptor)) {
        return Invalidation{.kind = InvalidationKind::interrupt_global};
    }
    const unsigned index_mask = Fields::IndexMask::get(descriptor);
    if (index_mask > kMaximumHandleMask) {
        return QueueError::reserved_field;
    }
    const unsigned index = Fields::Index::get(descriptor);
    const unsigned covered = index % (1u << index_mask);
    return Invalidation{.kind = InvalidationKind::interrupt_index,
                        .first_index = static_cast<std::uint16_t>(index - covered),
                        .index_mask = index_mask};
}

DecodedDescriptor decode_wait(const Descriptor& descriptor) {
    using Fields = spec::WaitDescriptor;
    if (Fields::All::has_reserved(descriptor)) {
        return QueueError::reserved_field;
    }
    return WaitRequest{
        .status_write = Fields::StatusWrite::get(descriptor),
        .interrupt = Fields::Interrupt::get(descriptor),
        .fence = Fields::Fence::get(descriptor),
        .status_data = Fields::StatusData::get(descriptor),
        .status_address = Fields::StatusAddress::get(descriptor),
    };
}

}  // namespace

DecodedDescriptor decode(const Descriptor& descriptor, const Capabilities& capabilities) {
    switch (spec::DescriptorType::get(descriptor)) {
        case spec::ContextCacheDescriptor::kType:
            return decode_context_cache(descriptor);
        case spec::IotlbDescriptor::kType:
            return decode_iotlb(descriptor);
        case spec::DeviceTlbDescriptor::kType:
            if (capabilities.device_tlb()) {
                return decode_device_tlb(descriptor);
            }
            break;
        case spec::InterruptEntryCacheDescriptor::kType:
            if (capabilities.interrupt_remapping()) {
                return decode_interrupt_entry_cache(descriptor);
            }
            break;
        case spec::WaitDescriptor::kType:
            return decode_wait(descriptor);
        default:
            break;
    }
    return QueueError::bad_type;
}

}  // namespace umbra::vtd
