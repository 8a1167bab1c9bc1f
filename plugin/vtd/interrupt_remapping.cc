// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/interrupt_remapping.h"

#include "plugin/vtd/entry_read.h"
#include "plugin/vtd/interrupt_range.h"
#include "plugin/vtd/spec/messages.h"
#include "plugin/vtd/spec/tables.h"

namespace umbra::vtd {

namespace {

// Values of SVT.
constexpr unsigned kSourceUnchecked = 0;
constexpr unsigned kSourceBySid = 1;
constexpr unsigned kSourceByBus = 2;

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
bool well_formed(const spec::Quads& entry, bool extended_mode) {
    using Entry = spec::InterruptEntry;
    const std::uint64_t reserved_by_mode = extended_mode ? 0 : Entry::kReservedWithShortDestination;
    return !Entry::All::has_reserved(entry) && (entry.low & reserved_by_mode) == 0 &&
           !Entry::PostedFormat::get(entry) && is_delivery_mode(Entry::DeliveryMode::get(entry)) &&
           Entry::SourceValidation::get(entry) <= kSourceByBus;
}

bool accepts(const spec::Quads& entry, SourceId source) {
    using Entry = spec::InterruptEntry;
    switch (Entry::SourceValidation::get(entry)) {
        case kSourceUnchecked:
            return true;
        case kSourceBySid:
            return SourceMatch(Entry::Source::get(entry), Entry::SourceQualifier::get(entry))
                .covers(source);
        default:
            return source.bus() >= Entry::FirstBus::get(entry) &&
                   source.bus() <= Entry::LastBus::get(entry);
    }
}

}  // namespace

InterruptResult InterruptRemapper::unchanged(std::uint64_t address, std::uint32_t data) {
    using Address = spec::CompatibilityAddress;
    using Data = spec::CompatibilityData;
    InterruptResult result;
    result.ok = true;
    result.vector = Data::Vector::get(data);
    result.delivery = static_cast<DeliveryMode>(Data::DeliveryMode::get(data));
    result.level_triggered = Data::TriggerModeLevel::get(data);
    result.destination = Address::Destination::get(address);
    result.redirection_hint = Address::RedirectionHint::get(address);
    result.logical_destination = Address::DestinationModeLogical::get(address);
    return result;
}

// The checks stand in the order of specification 5.1.3 and 5.1.4.
InterruptResult InterruptRemapper::remap(const InterruptTable& table, SourceId source,
                                         std::uint64_t address, std::uint32_t data) const {
    using Entry = spec::InterruptEntry;
    using Address = spec::RemappableAddress;
    using Data = spec::RemappableData;

    if (!is_interrupt_address(Gpa(address))) {
        return blocked(FaultReason::interrupt_request_reserved, 0);
    }
    if (!Address::Remappable::get(address)) {
        if (table.extended_mode || !table.compatibility_allowed) {
            return blocked(FaultReason::compatibility_format_blocked, 0);
        }
        return unchanged(address, data);
    }

    std::uint32_t index = Address::handle(address);
    if (Address::SubhandleValid::get(address)) {
        index += Data::Subhandle::get(data);
        if (Data::All::has_reserved(data)) {
            return blocked(FaultReason::interrupt_request_reserved, index);
        }
    }
    if (index >= table.entries) {
        return blocked(FaultReason::interrupt_index_beyond_table, index);
    }
    const auto entry = read_entry(memory_, table.address + std::uint64_t{index} * Entry::kBytes);
    if (!entry) {
        return blocked(FaultReason::interrupt_table_inaccessible, index);
    }
    const bool fault_disabled = Entry::FaultProcessingDisable::get(*entry);
    if (!Entry::Present::get(*entry)) {
        return blocked(FaultReason::interrupt_entry_not_present, index, fault_disabled);
    }
    if (!well_formed(*entry, table.extended_mode)) {
        return blocked(FaultReason::interrupt_entry_reserved, index, fault_disabled);
    }
    if (!accepts(*entry, source)) {
        return blocked(FaultReason::interrupt_source_refused, index, fault_disabled);
    }

    InterruptResult result;
    result.ok = true;
    result.remapped = true;
    result.vector = Entry::Vector::get(*entry);
    result.delivery = static_cast<DeliveryMode>(Entry::DeliveryMode::get(*entry));
    result.destination = table.extended_mode ? Entry::Destination::get(*entry)
                                             : Entry::ShortDestination::get(*entry);
    result.logical_destination = Entry::DestinationModeLogical::get(*entry);
    result.level_triggered = Entry::TriggerModeLevel::get(*entry);
    result.redirection_hint = Entry::RedirectionHint::get(*entry);
    result.index = static_cast<std::uint16_t>(index);
    return result;
}

}  // namespace umbra::vtd
