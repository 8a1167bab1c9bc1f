// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/context_cache.h"

namespace umbra::vtd {

ContextCache::ContextCache() : slots_(std::make_unique<Slots>()) {}

std::uint64_t ContextCache::pack(SourceId source, const ContextLookup& context) {
    const auto domain = static_cast<std::uint64_t>(context.domain);
    return Word::DomainHigh::place(DomainParts::High::get(domain)) |
           Word::Table::place(context.table) |
           Word::DomainLow::place(DomainParts::Low::get(domain)) |
           Word::Levels::place(context.levels - 2) | Word::Type::place(context.type) |
           Word::FaultDisable::place(context.fault_processing_disabled) |
           Word::Tag::place(tag_of(source));
}

void ContextCache::insert(SourceId source, const ContextLookup& context, Generation generation) {
    if (!context.present) {
        return;
    }
    const std::lock_guard guard(writers_);
    if (generation_.load(std::memory_order_relaxed) != generation) {
        return;
    }
    const std::size_t slot = slot_of(source);
    used_groups_.set(slot / kSlotsPerGroup);
    slots_->at(slot).store(pack(source, context), std::memory_order_release);
}

template <class Predicate>
void ContextCache::drop_if(Predicate covered) {
    const std::lock_guard guard(writers_);
    generation_.fetch_add(1, std::memory_order_acq_rel);
    for (std::size_t group = 0; group < kGroups; ++group) {
        if (!used_groups_.test(group)) {
            continue;
        }
        bool empty = true;
        for (std::size_t slot = group * kSlotsPerGroup; slot < (group + 1) * kSlotsPerGroup;
             ++slot) {
            auto& word = (*slots_)[slot];
            const std::uint64_t value = word.load(std::memory_order_relaxed);
            if (value == 0) {
                continue;
            }
            if (covered(source_of(slot, value), value)) {
                word.store(0, std::memory_order_release);
            } else {
                empty = false;
            }
        }
        if (empty) {
            used_groups_.reset(group);
        }
    }
}

void ContextCache::invalidate_all() {
    drop_if([](SourceId, std::uint64_t) { return true; });
}

void ContextCache::invalidate_domain(DomainId domain) {
    drop_if([domain](SourceId, std::uint64_t word) { return domain_of(word) == domain; });
}

void ContextCache::invalidate_devices(SourceMatch devices) {
    drop_if([devices](SourceId source, std::uint64_t) { return devices.covers(source); });
}

}  // namespace umbra::vtd
