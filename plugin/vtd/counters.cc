// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/counters.h"

#include <memory>

namespace umbra::vtd {

DomainTable::~DomainTable() {
    for (auto& slot : chunks_) {
        const std::unique_ptr<Chunk> owned(slot.load(std::memory_order_acquire));
    }
}

DomainTable::Chunk* DomainTable::make_chunk(std::size_t index) {
    auto fresh = std::make_unique<Chunk>();
    Chunk* present = nullptr;
    // Two threads may get here at once; the one that comes second uses the first one's chunk.
    if (chunks_[index].compare_exchange_strong(present, fresh.get(), std::memory_order_acq_rel)) {
        return fresh.release();
    }
    return present;
}

const DomainCounters* DomainTable::find(DomainId domain) const {
    const auto id = static_cast<std::uint16_t>(domain);
    const Chunk* chunk = chunks_[id / kChunkDomains].load(std::memory_order_acquire);
    return chunk == nullptr ? nullptr : &(*chunk)[id % kChunkDomains];
}

void DomainTable::clear() {
    for (auto& slot : chunks_) {
        if (Chunk* chunk = slot.load(std::memory_order_acquire); chunk != nullptr) {
            for (DomainCounters& domain : *chunk) {
                domain.clear();
            }
        }
    }
}

std::uint64_t Counters::iotlb_hits() const {
    std::uint64_t sum = 0;
    domains.for_each(
        [&](DomainId, const DomainCounters& domain) { sum += domain.iotlb_hits.value(); });
    return sum;
}

std::uint64_t Counters::iotlb_misses() const {
    std::uint64_t sum = 0;
    domains.for_each(
        [&](DomainId, const DomainCounters& domain) { sum += domain.iotlb_misses.value(); });
    return sum;
}

void Counters::clear() {
    UnitCounters::clear();
    for (Counter& counter : fault_reasons) {
        counter.clear();
    }
    domains.clear();
}

}  // namespace umbra::vtd
