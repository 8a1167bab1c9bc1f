// SPDX-License-Identifier: GPL-2.0-or-later
//
// Decoding of invalidation descriptors: from 16 bytes that the guest wrote to what they ask for, or
// to the reason why the queue must stop at them (VT-d specification 6.5.2).
#pragma once

#include <cstdint>
#include <variant>

#include "plugin/vtd/capabilities.h"
#include "plugin/vtd/counters.h"
#include "plugin/vtd/invalidation.h"
#include "plugin/vtd/spec/descriptors.h"
#include "plugin/vtd/types.h"

namespace umbra::vtd {

// An invalidation wait descriptor. It may ask for several things or for none.
struct WaitRequest {
    bool status_write = false;
    bool interrupt = false;
    bool fence = false;
    std::uint32_t status_data = 0;
    Gpa status_address;  // 4-byte-aligned
};

using DecodedDescriptor = std::variant<Invalidation, WaitRequest, QueueError>;

// A pure function. Errors are QueueError::bad_type and QueueError::reserved_field.
[[nodiscard]] DecodedDescriptor decode(const spec::Descriptor& descriptor,
                                       const Capabilities& capabilities);

}  // namespace umbra::vtd
