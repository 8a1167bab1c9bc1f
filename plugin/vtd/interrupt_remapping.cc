// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/interrupt_remapping.h"

#include "plugin/vtd/entry_read.h"
#include "plugin/vtd/interrupt_range.h"
#include "plugin/vtd/spec/tables.h"

namespace umbra::vtd {

namespace {

// Fields of a message's address and data (specification 5.1.2).
constexpr std::uint64_t kRemappableFormat = spec::bit(4);
constexpr std::uint64_t kSubhandleValid = spec::bit(3);  // SHV
constexpr std::uint32_t kSubhandle = 0xffff;
constexpr std::uint32_t kReservedWithSubhandle = 0xffff0000;

constexpr unsigned kSourceUnchecked = 0;
constexpr unsigned kSourceBySid = 1;
constexpr unsigned kSourceByBus = 2;

// Handle: bits 19:5 are its low-order bits 14:0, bit 2 is its bit 15.
std::uint32_t handle_of(std::uint64_t address) {
    return static_cast<std::uint32_t>((address >> 5 & 0x7fff) | (address >> 2 & 1) << 15);
}

bool is_delivery_mode(unsigned value) {
    return value != 3 && value != 6;
}

InterruptResult blocked(FaultReason reason, std::uint32_t index,
                        bool fault_processing_disabled = false) {
    InterruptResult result;
    result.reason = reason;
    result.fault_processing_disabled = fault_processing_disabled;
    result.index = static_cast<std::uint16_t>(index);
    return result;
}

// Reserved bits, and values that are reserved in the unit's present mode.
bool well_formed(const spec::InterruptEntry& entry, bool extended_mode) {
    using Entry = spec::InterruptEntry;
    const std::uint64_t reserved_low = Entry::kReservedLow | Entry::kPostedFormat |
                                       (extended_mode ? 0 : Entry::kReservedLowWithoutExtendedMode);
    return (entry.low & reserved_low) == 0 && (entry.high & Entry::kReservedHigh) == 0 &&
           is_delivery_mode(entry.delivery_mode()) && entry.source_validation() <= kSourceByBus;
}

bool accepts(const spec::InterruptEntry& entry, SourceId source) {
    switch (entry.source_validation()) {
        case kSourceUnchecked:
            return true;
        case kSourceBySid:
            return SourceMatch(SourceId(entry.source()), entry.source_qualifier()).covers(source);
        default: {
            // SID holds the first bus in its high byte and the last one in its low byte.
            const SourceId range(entry.source());
            return source.bus() >= range.bus() && source.bus() <= range.devfn();
        }
    }
}

}  // namespace

InterruptResult InterruptRemapper::unchanged(std::uint64_t address, std::uint32_t data) {
    InterruptResult result;
    result.ok = true;
    result.vector = static_cast<std::uint8_t>(data);
    result.delivery = static_cast<DeliveryMode>(data >> 8 & 7);
    result.level_triggered = (data >> 15 & 1) != 0;
    result.destination = static_cast<std::uint32_t>(address >> 12 & 0xff);
    result.redirection_hint = (address >> 3 & 1) != 0;
    result.logical_destination = (address >> 2 & 1) != 0;
    return result;
}

// The checks stand in the order of specification 5.1.3 and 5.1.4.
InterruptResult InterruptRemapper::remap(const InterruptTable& table, SourceId source,
                                         std::uint64_t address, std::uint32_t data) const {
    using Entry = spec::InterruptEntry;

    if (!is_interrupt_address(Gpa(address))) {
        return blocked(FaultReason::interrupt_request_reserved, 0);
    }
    if ((address & kRemappableFormat) == 0) {
        if (table.extended_mode || !table.compatibility_allowed) {
            return blocked(FaultReason::compatibility_format_blocked, 0);
        }
        return unchanged(address, data);
    }

    std::uint32_t index = handle_of(address);
    if ((address & kSubhandleValid) != 0) {
        index += data & kSubhandle;
        if ((data & kReservedWithSubhandle) != 0) {
            return blocked(FaultReason::interrupt_request_reserved, index);
        }
    }
    if (index >= table.entries) {
        return blocked(FaultReason::interrupt_index_beyond_table, index);
    }
    const auto quads = read_entry(memory_, table.address + std::uint64_t{index} * Entry::kBytes);
    if (!quads.has_value()) {
        return blocked(FaultReason::interrupt_table_inaccessible, index);
    }
    const Entry entry{quads->low, quads->high};
    const bool fault_disabled = entry.fault_processing_disabled();
    if (!entry.present()) {
        return blocked(FaultReason::interrupt_entry_not_present, index, fault_disabled);
    }
    if (!well_formed(entry, table.extended_mode)) {
        return blocked(FaultReason::interrupt_entry_reserved, index, fault_disabled);
    }
    if (!accepts(entry, source)) {
        return blocked(FaultReason::interrupt_source_refused, index, fault_disabled);
    }

    InterruptResult result;
    result.ok = true;
    result.remapped = true;
    result.vector = entry.vector();
    result.delivery = static_cast<DeliveryMode>(entry.delivery_mode());
    result.destination = static_cast<std::uint32_t>(
        entry.low >> (table.extended_mode ? Entry::kDestinationShift
                                          : Entry::kDestinationShiftWithoutExtendedMode));
    result.logical_destination = (entry.low & Entry::kDestinationModeLogical) != 0;
    result.level_triggered = (entry.low & Entry::kTriggerModeLevel) != 0;
    result.redirection_hint = (entry.low & Entry::kRedirectionHint) != 0;
    result.index = static_cast<std::uint16_t>(index);
    return result;
}

}  // namespace umbra::vtd
