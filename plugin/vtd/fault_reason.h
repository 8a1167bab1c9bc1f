// SPDX-License-Identifier: GPL-2.0-or-later
//
// The reason why a request was blocked: the fault reason codes of legacy mode and of interrupt
// remapping, as they appear in the FR field of a fault recording register (specification 7.1
// and 11.4.7.6).
//
// A fault that is found after the context entry (or the interrupt remapping table entry) was read
// is a qualified one: its recording is suppressed if that entry has FPD set. The look-ups of this
// folder return FPD beside the reason, and false with every reason that is not qualified. So a
// caller records a fault exactly if `fault_processing_disabled` is false.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace umbra::vtd {

enum class FaultReason : std::uint8_t {
    none = 0x00,

    // Remapping of DMA.
    root_not_present = 0x01,
    context_not_present = 0x02,
    // Address width or translation type that the unit does not support, or the top-level table
    // cannot be read.
    invalid_context = 0x03,
    // The IOVA has bits above the width that the context entry gives.
    beyond_address_width = 0x04,
    write_denied = 0x05,
    read_denied = 0x06,
    // A table below the top-level one cannot be read.
    next_table_inaccessible = 0x07,
    root_table_inaccessible = 0x08,
    context_table_inaccessible = 0x09,
    root_reserved = 0x0a,
    context_reserved = 0x0b,
    entry_reserved = 0x0c,
    // A translated request or a translation request of a device for which the context entry's
    // translation type allows neither.
    request_type_blocked = 0x0d,
    // The translation leads into the interrupt address range.
    output_is_interrupt_address = 0x0e,

    // Remapping of interrupts.
    interrupt_request_reserved = 0x20,
    interrupt_index_beyond_table = 0x21,
    interrupt_entry_not_present = 0x22,
    interrupt_table_inaccessible = 0x23,
    interrupt_entry_reserved = 0x24,
    compatibility_format_blocked = 0x25,
    interrupt_source_refused = 0x26,
};

// One more than the largest code: the size of an array that is indexed by reason.
inline constexpr std::size_t kFaultReasonCodes = 0x27;

// A stable, lower-case name with hyphens ("root-not-present") for logs and counters. "unknown" for
// a value that is no enumerator.
[[nodiscard]] constexpr std::string_view fault_reason_name(FaultReason reason) {
    switch (reason) {
        case FaultReason::none:
            return "none";
        case FaultReason::root_not_present:
            return "root-not-present";
        case FaultReason::context_not_present:
            return "context-not-present";
        case FaultReason::invalid_context:
            return "invalid-context";
        case FaultReason::beyond_address_width:
            return "beyond-address-width";
        case FaultReason::write_denied:
            return "write-denied";
        case FaultReason::read_denied:
            return "read-denied";
        case FaultReason::next_table_inaccessible:
            return "next-table-inaccessible";
        case FaultReason::root_table_inaccessible:
            return "root-table-inaccessible";
        case FaultReason::context_table_inaccessible:
            return "context-table-inaccessible";
        case FaultReason::root_reserved:
            return "root-reserved";
        case FaultReason::context_reserved:
            return "context-reserved";
        case FaultReason::entry_reserved:
            return "entry-reserved";
        case FaultReason::request_type_blocked:
            return "request-type-blocked";
        case FaultReason::output_is_interrupt_address:
            return "output-is-interrupt-address";
        case FaultReason::interrupt_request_reserved:
            return "interrupt-request-reserved";
        case FaultReason::interrupt_index_beyond_table:
            return "interrupt-index-beyond-table";
        case FaultReason::interrupt_entry_not_present:
            return "interrupt-entry-not-present";
        case FaultReason::interrupt_table_inaccessible:
            return "interrupt-table-inaccessible";
        case FaultReason::interrupt_entry_reserved:
            return "interrupt-entry-reserved";
        case FaultReason::compatibility_format_blocked:
            return "compatibility-format-blocked";
        case FaultReason::interrupt_source_refused:
            return "interrupt-source-refused";
    }
    return "unknown";
}

}  // namespace umbra::vtd
