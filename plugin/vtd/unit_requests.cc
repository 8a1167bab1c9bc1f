// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a unit does for each request of a device: translation of DMA and remapping of interrupts.
#include "plugin/vtd/interrupt_range.h"
#include "plugin/vtd/spec/registers.h"
#include "plugin/vtd/unit.h"
#include "plugin/vtd/unit_state.h"

namespace umbra::vtd {
namespace {

// Addresses stay unchanged in the whole 1 MiB block around an address. The interrupt address range
// has that size and alignment, so no block is partly inside the range.
constexpr std::uint64_t kUnchangedMask = kInterruptRangeLast - kInterruptRangeFirst;

// Largest block around `iova` within `page_mask` that holds no interrupt address. `iova` itself is
// no interrupt address.
constexpr std::uint64_t clip_to_interrupt_range(Iova iova, std::uint64_t page_mask) {
    const bool overlaps =
        iova.align_down(page_mask + 1) == Iova(kInterruptRangeFirst).align_down(page_mask + 1);
    return overlaps && page_mask > kUnchangedMask ? kUnchangedMask : page_mask;
}

constexpr Translation unchanged(Iova iova) {
    Translation translation;
    translation.ok = true;
    translation.address = Gpa(iova.value());
    translation.page_mask = kUnchangedMask;
    translation.granted = Access::read_write;
    return translation;
}

constexpr Translation blocked(const ContextLookup& context, FaultReason reason) {
    Translation translation;
    translation.domain = context.domain;
    translation.reason = reason;
    translation.fault_processing_disabled = context.fault_processing_disabled;
    return translation;
}

constexpr Translation blocked_interrupt_address() {
    Translation translation;
    translation.reason = FaultReason::interrupt_request_reserved;
    return translation;
}

constexpr Translation translated(const ContextLookup& context, Iova iova, Gpa address,
                                 std::uint64_t page_mask, Access granted) {
    Translation translation;
    translation.ok = true;
    translation.address = address;
    translation.page_mask = clip_to_interrupt_range(iova, page_mask);
    translation.granted = granted;
    translation.domain = context.domain;
    return translation;
}

constexpr InterruptTable interrupt_table_of(std::uint64_t state) {
    return {.address = InterruptFields::Address::get(state),
            .entries = std::uint32_t{2} << InterruptFields::Size::get(state),
            .extended_mode = InterruptFields::ExtendedMode::get(state),
            .compatibility_allowed = InterruptFields::CompatibilityAllowed::get(state)};
}

// True for a read fault. A request for both accesses is reported by the access that was refused.
constexpr bool is_read_fault(Access wanted, FaultReason reason) {
    return reason == FaultReason::read_denied ||
           (reason != FaultReason::write_denied && !allows(wanted, Access::write));
}

}  // namespace

// ---- DMA ----

bool Unit::translation_enabled() const {
    return TranslationFields::On::get(translation_.load(std::memory_order_acquire));
}

Translation Unit::translate(SourceId source, Iova iova, Access wanted) {
    // Taken before any table is read, so that an invalidation in between keeps the entries read
    // here out of the caches.
    const Iotlb::Generation iotlb_generation = iotlb_.generation();
    const ContextCache::Generation context_generation = context_cache_.generation();
    const TranslationState state = translation_.load(std::memory_order_acquire);
    if (!TranslationFields::On::get(state)) {
        return unchanged(iova);
    }
    if (is_interrupt_address(iova)) [[unlikely]] {
        // Faults of interrupt requests name an index; this request has none.
        return report(source, Iova(), wanted, blocked_interrupt_address());
    }
    const ContextLookup context = cached_context(state, source, context_generation);
    const Translation translation = context.is_second_stage()
                                        ? second_stage(context, iova, wanted, iotlb_generation)
                                        : without_second_stage(context, iova);
    if (!translation.ok) [[unlikely]] {
        if (context.present) {
            counters_.domains.at(context.domain).faults.add();
        }
        return report(source, iova, wanted, translation);
    }
    return translation;
}

ContextLookup Unit::cached_context(TranslationState state, SourceId source,
                                   ContextCache::Generation generation) {
    ContextLookup context = context_cache_.lookup(source);
    if (!context.present) [[unlikely]] {
        context = context_tables_.lookup(TranslationFields::RootTable::get(state), source);
        context_cache_.insert(source, context, generation);
    }
    return context;
}

Translation Unit::second_stage(const ContextLookup& context, Iova iova, Access wanted,
                               Iotlb::Generation generation) {
    DomainCounters& domain = counters_.domains.at(context.domain);
    const auto hit = iotlb_.lookup(context.domain, iova);
    if (hit && second_stage_.serves(hit->granted, wanted)) [[likely]] {
        domain.iotlb_hits.add();
        return translated(context, iova, hit->address, hit->page_mask, hit->granted);
    }
    domain.iotlb_misses.add();
    const WalkResult walk = second_stage_.walk(context.table, context.levels, iova, wanted);
    if (!walk.ok) {
        return blocked(context, walk.reason);
    }
    iotlb_.insert(context.domain, iova, walk, generation);
    return translated(context, iova, walk.address, walk.page_mask, walk.granted);
}

// For a pass-through device, or a device that has no valid context entry.
Translation Unit::without_second_stage(const ContextLookup& context, Iova iova) const {
    if (!context.present) {
        return blocked(context, context.reason);
    }
    if ((iova.value() & ~capabilities_.host_address_mask) != 0) {
        return blocked(context, FaultReason::beyond_address_width);
    }
    return translated(context, iova, Gpa(iova.value()), kUnchangedMask, Access::read_write);
}

Translation Unit::report(SourceId source, Iova iova, Access wanted, const Translation& blocked) {
    counters_.fault(blocked.reason).add();
    if (blocked.fault_processing_disabled) {
        counters_.faults.suppressed.add();
    } else {
        fault_log_.record({.source = source,
                           .reason = blocked.reason,
                           .information = iova.value(),
                           .read = is_read_fault(wanted, blocked.reason)});
    }
    return blocked;
}

Translation Unit::lookup(SourceId source, Iova iova) const {
    const ContextLookup context = context_of(source);
    if (context.translation_off) {
        return unchanged(iova);
    }
    if (is_interrupt_address(iova)) {
        return blocked_interrupt_address();
    }
    if (!context.is_second_stage()) {
        return without_second_stage(context, iova);
    }
    const WalkResult walk = second_stage_.find(context.table, context.levels, iova);
    return walk.ok ? translated(context, iova, walk.address, walk.page_mask, walk.granted)
                   : blocked(context, walk.reason);
}

ContextLookup Unit::context_of(SourceId source) const {
    const TranslationState state = translation_.load(std::memory_order_acquire);
    if (!TranslationFields::On::get(state)) {
        ContextLookup off;
        off.translation_off = true;
        return off;
    }
    return context_tables_.lookup(TranslationFields::RootTable::get(state), source);
}

// ---- Interrupts ----

bool Unit::interrupt_remapping_enabled() const {
    return InterruptFields::RemappingOn::get(interrupts_.load(std::memory_order_acquire));
}

InterruptResult Unit::lookup_interrupt(SourceId source, std::uint64_t address,
                                       std::uint32_t data) const {
    const InterruptState state = interrupts_.load(std::memory_order_acquire);
    if (!InterruptFields::RemappingOn::get(state)) {
        return InterruptRemapper::unchanged(address, data);
    }
    return interrupt_remapper_.remap(interrupt_table_of(state), source, address, data);
}

InterruptResult Unit::remap(SourceId source, std::uint64_t address, std::uint32_t data) {
    const InterruptResult result = lookup_interrupt(source, address, data);
    if (!result.ok) [[unlikely]] {
        counters_.fault(result.reason).add();
        if (result.fault_processing_disabled) {
            counters_.faults.suppressed.add();
        } else {
            fault_log_.record(
                {.source = source,
                 .reason = result.reason,
                 .information = spec::FaultRecord::InterruptIndex::place(result.index),
                 .read = false});
        }
    }
    return result;
}

}  // namespace umbra::vtd
