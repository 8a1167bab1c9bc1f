// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/context_tables.h"

#include "plugin/vtd/entry_read.h"
#include "plugin/vtd/spec/tables.h"

namespace umbra::vtd {

namespace {

ContextLookup blocked(FaultReason reason, bool fault_processing_disabled = false) {
    ContextLookup result;
    result.reason = reason;
    result.fault_processing_disabled = fault_processing_disabled;
    return result;
}

// AW counts from two levels (30 bits), which no unit in use supports.
unsigned levels_of(const spec::ContextEntry& entry) {
    return entry.address_width() + 2;
}

bool supported(const ContextRules& rules, const spec::ContextEntry& entry) {
    constexpr unsigned kFewestLevels = 3;
    const unsigned levels = levels_of(entry);
    if (levels < kFewestLevels || levels > rules.max_levels) {
        return false;
    }
    switch (entry.translation_type()) {
        case static_cast<unsigned>(TranslationType::second_stage):
            return true;
        case static_cast<unsigned>(TranslationType::second_stage_with_device_tlb):
            return rules.device_iotlb;
        case static_cast<unsigned>(TranslationType::pass_through):
            return rules.pass_through;
        default:
            return false;
    }
}

}  // namespace

ContextLookup ContextTables::lookup(Gpa root_table, SourceId source) const {
    const std::uint64_t no_address = spec::above_address_width(rules_.host_address_width);

    const auto root_quads =
        read_entry(memory_, root_table + std::uint64_t{source.bus()} * spec::RootEntry::kBytes);
    if (!root_quads.has_value()) {
        return blocked(FaultReason::root_table_inaccessible);
    }
    const spec::RootEntry root{root_quads->low, root_quads->high};
    if (!root.present()) {
        return blocked(FaultReason::root_not_present);
    }
    if ((root.low & (spec::RootEntry::kReservedLow | no_address)) != 0 ||
        (root.high & spec::RootEntry::kReservedHigh) != 0) {
        return blocked(FaultReason::root_reserved);
    }

    const Gpa context_address =
        Gpa(root.context_table()) + std::uint64_t{source.devfn()} * spec::ContextEntry::kBytes;
    const auto context_quads = read_entry(memory_, context_address);
    if (!context_quads.has_value()) {
        return blocked(FaultReason::context_table_inaccessible);
    }
    const spec::ContextEntry entry{context_quads->low, context_quads->high};
    const bool fault_disabled = entry.fault_processing_disabled();
    if (!entry.present()) {
        return blocked(FaultReason::context_not_present, fault_disabled);
    }
    if ((entry.low & (spec::ContextEntry::kReservedLow | no_address)) != 0 ||
        (entry.high & spec::ContextEntry::kReservedHigh) != 0) {
        return blocked(FaultReason::context_reserved, fault_disabled);
    }
    if (!supported(rules_, entry)) {
        return blocked(FaultReason::invalid_context, fault_disabled);
    }

    ContextLookup result;
    result.present = true;
    result.fault_processing_disabled = fault_disabled;
    result.type = static_cast<TranslationType>(entry.translation_type());
    result.domain = DomainId{entry.domain()};
    result.table = Gpa(entry.second_stage_table());
    result.levels = levels_of(entry);
    return result;
}

}  // namespace umbra::vtd
