// SPDX-License-Identifier: GPL-2.0-or-later
//
// One invalidation, whichever way software asked for it: a descriptor in the queue, or a command
// in the CCMD or IOTLB register (VT-d specification 6.5.1 and 6.5.2). The unit, its observers and
// the shadow all take this one value.
//
// The type is a value: trivially copyable, safe to use from any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "counter_types.h"
#include "plugin/vtd/types.h"

namespace umbra::vtd {

using telemetry::InvalidationKind;
using telemetry::kInvalidationKinds;

// `kind` says which of the other members mean something. The others have their defaults.
struct Invalidation {
    InvalidationKind kind = InvalidationKind::context_global;
    DomainId domain{};      // context_domain, context_device, iotlb_domain, iotlb_page
    SourceMatch devices{};  // context_device, device_tlb
    // iotlb_page: 2^AM pages of 4 KiB, naturally aligned. device_tlb: the addresses to drop.
    IovaRange range = IovaRange::everything();
    // iotlb_page: the invalidation hint IH. No page-table page was freed or changed, only leaves.
    bool leaf_only = false;
    // interrupt_index: 2^index_mask entries from first_index, which is aligned to that number.
    std::uint16_t first_index = 0;
    unsigned index_mask = 0;

    static constexpr Invalidation context_global() {
        return {.kind = InvalidationKind::context_global};
    }
    static constexpr Invalidation context_domain(DomainId domain) {
        return {.kind = InvalidationKind::context_domain, .domain = domain};
    }
    static constexpr Invalidation context_device(DomainId domain, SourceMatch devices) {
        return {.kind = InvalidationKind::context_device, .domain = domain, .devices = devices};
    }
    static constexpr Invalidation iotlb_global() {
        return {.kind = InvalidationKind::iotlb_global};
    }
    static constexpr Invalidation iotlb_domain(DomainId domain) {
        return {.kind = InvalidationKind::iotlb_domain, .domain = domain};
    }
    static constexpr Invalidation iotlb_page(DomainId domain, IovaRange range, bool leaf_only) {
        return {.kind = InvalidationKind::iotlb_page,
                .domain = domain,
                .range = range,
                .leaf_only = leaf_only};
    }
};

}  // namespace umbra::vtd
