// SPDX-License-Identifier: GPL-2.0-or-later
//
// A fault as a guest's driver reads it from a fault recording register (specification 11.4.7.6).
#pragma once

#include <cstdint>

#include "plugin/vtd/types.h"
#include "tests/support/driver/layout.h"

namespace umbra::driver {

struct Fault {
    SourceId source;
    Iova address;  // page of the request; for interrupt requests, index << 48 as recorded
    Reason reason{};
    bool read = false;  // type T: a read, else a write

    [[nodiscard]] std::uint16_t interrupt_index() const {
        return static_cast<std::uint16_t>(address.value() >> 48);
    }
    friend bool operator==(const Fault&, const Fault&) = default;
};

// The two halves of a register whose bit F is set.
[[nodiscard]] inline Fault fault_of(std::uint64_t low, std::uint64_t high) {
    return {.source = SourceId(record_source(high)),
            .address = Iova(low),
            .reason = static_cast<Reason>(record_reason(high)),
            .read = (high & kRecordRead) != 0};
}

}  // namespace umbra::driver
