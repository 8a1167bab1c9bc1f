// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/second_stage.h"

#include "plugin/vtd/interrupt_range.h"

namespace umbra::vtd {

namespace {

FaultReason denial(Access granted, Access wanted) {
    const bool lacks_write =
        (wanted & Access::write) != Access::none && (granted & Access::write) == Access::none;
    return lacks_write ? FaultReason::write_denied : FaultReason::read_denied;
}

void fail(WalkResult& result, FaultReason reason) {
    result.ok = false;
    result.cacheable = false;
    result.reason = reason;
}

// Blocks a translation that leads into the interrupt address range.
void check_output(WalkResult& result) {
    if (is_interrupt_address(result.address)) {
        fail(result, FaultReason::output_is_interrupt_address);
        return;
    }
    const Gpa first = result.address.align_down(result.page_mask + 1);
    const Gpa last = first + result.page_mask;
    if (first.value() <= kInterruptRangeLast && last.value() >= kInterruptRangeFirst) {
        result.page_mask = kPageSize - 1;
        result.cacheable = false;
    }
}

}  // namespace

WalkResult SecondStage::descend(Gpa table, unsigned levels, Iova iova) const {
    WalkResult result;
    if (!fits_address_width(iova, levels)) {
        result.reason = FaultReason::beyond_address_width;
        return result;
    }
    Access granted = Access::read_write;
    for (unsigned level = levels; level > 0; --level) {
        const auto raw = memory_.read_u64(table + std::uint64_t{level_index(iova, level)} *
                                                      spec::SecondStageEntry::kBytes);
        if (!raw.has_value()) {
            result.reason = level == levels ? FaultReason::invalid_context
                                            : FaultReason::next_table_inaccessible;
            return result;
        }
        result.level = level;
        const DecodedEntry entry = format_.decode(level, *raw);
        switch (entry.kind) {
            case DecodedEntry::Kind::not_present:
                result.reason = FaultReason::read_denied;
                return result;
            case DecodedEntry::Kind::reserved:
                result.reason = FaultReason::entry_reserved;
                return result;
            case DecodedEntry::Kind::table:
                granted = granted & entry.access;
                table = entry.address;
                break;
            case DecodedEntry::Kind::leaf:
                granted = granted & entry.access;
                result.ok = result.cacheable = granted != Access::none;
                result.reason = result.ok ? FaultReason::none : FaultReason::read_denied;
                result.granted = granted;
                result.page_mask = level_span(level) - 1;
                result.address = entry.address + (iova.value() & result.page_mask);
                return result;
        }
    }
    return result;
}

WalkResult SecondStage::walk(Gpa table, unsigned levels, Iova iova, Access wanted) const {
    WalkResult result = descend(table, levels, iova);
    if (result.ok ? !serves(result.granted, wanted) : result.reason == FaultReason::read_denied) {
        fail(result, denial(result.granted, wanted));
    }
    if (result.ok) {
        check_output(result);
    }
    return result;
}

WalkResult SecondStage::find(Gpa table, unsigned levels, Iova iova) const {
    WalkResult result = descend(table, levels, iova);
    if (result.ok) {
        check_output(result);
    }
    return result;
}

}  // namespace umbra::vtd
