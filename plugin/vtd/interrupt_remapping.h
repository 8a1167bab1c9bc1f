// SPDX-License-Identifier: GPL-2.0-or-later
//
// Interrupt remapping: from a message that a device or an I/O APIC wrote to the interrupt address
// range to the interrupt that the guest's table makes of it (specification 5.1 and 9.9).
//
// Bit 4 of the message's address tells the two formats apart. A compatibility-format message is
// the interrupt itself, and passes or is blocked as a whole. A remappable one holds an index into
// the interrupt remapping table; the entry there says what to deliver, and from whom to take it.
// Entries in the format for posted interrupts are refused: the unit does not report CAP.PI.
#pragma once

#include <cstdint>

#include "plugin/vtd/fault_reason.h"
#include "plugin/vtd/guest_memory.h"
#include "plugin/vtd/types.h"

namespace umbra::vtd {

// As in an MSI's data and in an interrupt remapping table entry. 3 and 6 are reserved.
enum class DeliveryMode : std::uint8_t {
    fixed = 0,
    lowest_priority = 1,
    smi = 2,
    nmi = 4,
    init = 5,
    extint = 7,
};

// The interrupt to deliver, or why there is none.
struct InterruptResult {
    bool ok = false;
    // False for a message that passed as it was: forward the original address and data. The fields
    // below are then the message's own.
    bool remapped = false;

    // Meaningful if ok.
    std::uint8_t vector = 0;
    DeliveryMode delivery = DeliveryMode::fixed;
    std::uint32_t destination = 0;  // APIC id or logical destination; 8 bits unless extended mode
    bool logical_destination = false;
    bool level_triggered = false;
    bool redirection_hint = false;

    // Meaningful if not ok.
    FaultReason reason = FaultReason::none;
    bool fault_processing_disabled = false;  // the fault is not to be recorded

    // Index of the table entry, for a remappable message. A fault record names it (specification
    // 11.4.7.6, FI). An index that handle and subhandle carry beyond 16 bits is cut to 16.
    std::uint16_t index = 0;

    friend constexpr bool operator==(const InterruptResult&, const InterruptResult&) = default;
};

// The table as the guest has latched it: IRTA at the last SIRTP command, and GSTS.CFIS.
struct InterruptTable {
    Gpa address;                         // 4 KiB-aligned
    std::uint32_t entries = 0;           // 2 to 65,536
    bool extended_mode = false;          // EIME: 32-bit destinations
    bool compatibility_allowed = false;  // CFIS; of no effect with extended mode
};

// Stateless but for its memory; safe to use from any thread.
class InterruptRemapper {
  public:
    // `memory` outlives the object.
    explicit InterruptRemapper(const GuestMemory& memory) : memory_(memory) {}

    // Remaps the message of `source` while interrupt remapping is on. An `address` outside the
    // interrupt address range is treated as one with reserved bits set.
    // Reasons: all of 0x20 to 0x26. A posted-format entry, a reserved delivery mode or a reserved
    // source validation type counts as interrupt_entry_reserved.
    [[nodiscard]] InterruptResult remap(const InterruptTable& table, SourceId source,
                                        std::uint64_t address, std::uint32_t data) const;

    // The result for a message that is delivered as it is: interrupt remapping is off.
    [[nodiscard]] static InterruptResult unchanged(std::uint64_t address, std::uint32_t data);

  private:
    const GuestMemory& memory_;
};

}  // namespace umbra::vtd
