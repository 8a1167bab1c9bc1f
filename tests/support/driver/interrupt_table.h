// SPDX-License-Identifier: GPL-2.0-or-later
//
// An interrupt-remapping table as a guest's driver builds it (specification 9.10), and the messages
// that name its entries (5.1.2.2).
#pragma once

#include <cstdint>

#include "plugin/vtd/types.h"
#include "tests/support/driver/memory.h"
#include "tests/support/driver/page_allocator.h"

namespace umbra::driver {

// What an entry in remapped format says.
struct InterruptEntry {
    bool present = true;
    bool fault_processing_disabled = false;
    bool logical_destination = false;
    bool redirection_hint = false;
    bool level_triggered = false;
    unsigned delivery_mode = 0;
    std::uint8_t vector = 0;
    std::uint32_t destination = 0;  // APIC id
    bool extended_mode = false;     // how `destination` is laid out: EIM or xAPIC
    SourceId source{};
    unsigned source_qualifier = 0;
    unsigned source_validation = 0;  // SVT: 0 none, 1 by SQ and source, 2 by bus range
};

// `memory` outlives it.
class InterruptTable {
  public:
    // 2^(size + 1) entries; `size` 0 to 15.
    InterruptTable(Memory& memory, PageAllocator& pages, unsigned size);

    [[nodiscard]] Gpa address() const { return address_; }
    [[nodiscard]] unsigned size() const { return size_; }
    void set(std::uint16_t index, const InterruptEntry& entry);
    void set_raw(std::uint16_t index, std::uint64_t low, std::uint64_t high);

  private:
    Memory& memory_;
    unsigned size_;
    Gpa address_;
};

// The address of an interrupt message in remappable format.
[[nodiscard]] std::uint64_t remappable_address(std::uint16_t handle, bool subhandle_valid = false);

}  // namespace umbra::driver
