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

// There are AW + 2 levels. No unit in use supports AW 0 (30 bits).
unsigned levels_of(const spec::Quads& entry) {
    return spec::ContextEntry::AddressWidth::get(entry) + 2;
}

bool supported(const ContextRules& rules, const spec::Quads& entry) {
    constexpr unsigned kFewestLevels = 3;
    const unsigned levels = levels_of(entry);
    if (levels < kFewestLevels || levels > rules.max_levels) {
        return false;
    }
    switch (spec::ContextEntry::TranslationType::get(entry)) {
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
    using Root = spec::RootEntry;
    using Context = spec::ContextEntry;
    // In both entries the address is in the low quadword.
    const std::uint64_t no_address = spec::above_address_width(rules_.host_address_width);

    const auto root = read_entry(memory_, root_table + std::uint64_t{source.bus()} * Root::kBytes);
    if (!root) {
        return blocked(FaultReason::root_table_inaccessible);
    }
    if (!Root::Present::get(*root)) {
        return blocked(FaultReason::root_not_present);
    }
    if (Root::All::has_reserved(*root) || (root->low & no_address) != 0) {
        return blocked(FaultReason::root_reserved);
    }

    const auto entry = read_entry(
        memory_, Root::ContextTable::get(*root) + std::uint64_t{source.devfn()} * Context::kBytes);
    if (!entry) {
        return blocked(FaultReason::context_table_inaccessible);
    }
    const bool fault_disabled = Context::FaultProcessingDisable::get(*entry);
    if (!Context::Present::get(*entry)) {
        return blocked(FaultReason::context_not_present, fault_disabled);
    }
    if (Context::All::has_reserved(*entry) || (entry->low & no_address) != 0) {
        return blocked(FaultReason::context_reserved, fault_disabled);
    }
    if (!supported(rules_, *entry)) {
        return blocked(FaultReason::invalid_context, fault_disabled);
    }

    ContextLookup result;
    result.present = true;
    result.fault_processing_disabled = fault_disabled;
    result.type = static_cast<TranslationType>(Context::TranslationType::get(*entry));
    result.domain = Context::Domain::get(*entry);
    result.table = Context::SecondStageTable::get(*entry);
    result.levels = levels_of(*entry);
    return result;
}

}  // namespace umbra::vtd
