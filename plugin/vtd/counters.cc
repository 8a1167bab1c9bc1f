// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/counters.h"

#include <memory>

namespace umbra::vtd {

const char* name_of(InvalidationKind kind) {
    switch (kind) {
        case InvalidationKind::context_global:
            return "context-global";
        case InvalidationKind::context_domain:
            return "context-domain";
        case InvalidationKind::context_device:
            return "context-device";
        case InvalidationKind::iotlb_global:
            return "iotlb-global";
        case InvalidationKind::iotlb_domain:
            return "iotlb-domain";
        case InvalidationKind::iotlb_page:
            return "iotlb-page";
        case InvalidationKind::device_tlb:
            return "device-tlb";
        case InvalidationKind::interrupt_global:
            return "interrupt-global";
        case InvalidationKind::interrupt_index:
            return "interrupt-index";
    }
    return "unknown";
}

const char* name_of(InvalidationPath path) {
    return path == InvalidationPath::queue ? "queue" : "registers";
}

const char* name_of(QueueError error) {
    switch (error) {
        case QueueError::tail_out_of_range:
            return "tail-out-of-range";
        case QueueError::fetch_failed:
            return "fetch-failed";
        case QueueError::bad_type:
            return "bad-type";
        case QueueError::reserved_field:
            return "reserved-field";
    }
    return "unknown";
}

bool DomainCounters::any() const {
    return (iotlb_hits.value() | iotlb_misses.value() | domain_invalidations.value() |
            page_invalidations.value() | pages_invalidated.value() | faults.value()) != 0;
}

void DomainCounters::clear() {
    iotlb_hits.clear();
    iotlb_misses.clear();
    domain_invalidations.clear();
    page_invalidations.clear();
    pages_invalidated.clear();
    faults.clear();
}

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
    for (auto& paths : invalidations) {
        for (Counter& counter : paths) {
            counter.clear();
        }
    }
    for (Counter& counter : queue_errors) {
        counter.clear();
    }
    for (Counter& counter : faults) {
        counter.clear();
    }
    for (Counter* counter :
         {&register_commands_refused, &tail_writes, &wait_descriptors, &wait_status,
          &wait_interrupt, &wait_fence, &wait_status_lost, &faults_recorded, &faults_collapsed,
          &faults_overflowed, &faults_suppressed}) {
        counter->clear();
    }
    domains.clear();
}

}  // namespace umbra::vtd
