// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a unit counts. The counters themselves stand in umbra.proto (messages Snapshot and Domain);
// this adds two tables: by guest domain, and by fault reason. Operators read the counters while the
// machine runs and may clear them; guests never see them.
//
// Threading: every function may be called from any thread. Counting takes no lock, and a reader
// sees each counter at some recent moment, not all of them at the same one.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "counter_types.h"
#include "plugin/vtd/fault_reason.h"
#include "plugin/vtd/invalidation.h"
#include "plugin/vtd/types.h"

namespace umbra::vtd {

using telemetry::Counter;
using telemetry::InvalidationPath;
using telemetry::kInvalidationPaths;
using telemetry::kQueueErrors;
using telemetry::name_of;
using telemetry::QueueError;

// One guest domain. Takes a cache line of its own, so that DMA threads of different domains do not
// slow each other down.
struct alignas(64) DomainCounters : telemetry::atomic::DomainCounters {};

// The counters of all 64 Ki possible domains. Memory for 256 neighbouring domains (16 KiB) comes
// into being when one of them is first counted, which the translation path does at a domain's first
// IOTLB miss; so an IOTLB hit never allocates, and a guest that uses every domain-id costs 4 MiB.
class DomainTable {
  public:
    DomainTable() = default;
    ~DomainTable();
    DomainTable(const DomainTable&) = delete;
    DomainTable& operator=(const DomainTable&) = delete;

    [[nodiscard]] DomainCounters& at(DomainId domain) {
        const auto id = static_cast<std::uint16_t>(domain);
        Chunk* chunk = chunks_[id / kChunkDomains].load(std::memory_order_acquire);
        if (chunk == nullptr) [[unlikely]] {
            chunk = make_chunk(id / kChunkDomains);
        }
        return (*chunk)[id % kChunkDomains];
    }
    // nullptr if nothing was ever counted for `domain` or a neighbour.
    [[nodiscard]] const DomainCounters* find(DomainId domain) const;

    // Calls `visit(DomainId, const DomainCounters&)` for every domain that has a counter above 0,
    // in the order of domain-ids.
    template <class Visitor>
    void for_each(Visitor&& visit) const {
        for (std::size_t i = 0; i < kChunks; ++i) {
            const Chunk* chunk = chunks_[i].load(std::memory_order_acquire);
            for (std::size_t j = 0; chunk != nullptr && j < kChunkDomains; ++j) {
                if ((*chunk)[j].any()) {
                    visit(static_cast<DomainId>(i * kChunkDomains + j), (*chunk)[j]);
                }
            }
        }
    }
    void clear();

  private:
    static constexpr std::size_t kChunkDomains = 256;
    static constexpr std::size_t kChunks = 256;
    using Chunk = std::array<DomainCounters, kChunkDomains>;

    Chunk* make_chunk(std::size_t index);

    std::array<std::atomic<Chunk*>, kChunks> chunks_{};
};

struct Counters : telemetry::atomic::UnitCounters {
    // By fault reason code; DMA and interrupt requests. Each fault is in exactly one counter of
    // `faults` as well.
    std::array<Counter, kFaultReasonCodes> fault_reasons;

    DomainTable domains;

    [[nodiscard]] const Counter& invalidation(InvalidationKind kind, InvalidationPath path) const {
        return invalidations[path][kind];
    }
    [[nodiscard]] Counter& invalidation(InvalidationKind kind, InvalidationPath path) {
        return invalidations[path][kind];
    }
    [[nodiscard]] const Counter& fault(FaultReason reason) const {
        return fault_reasons[static_cast<std::size_t>(reason)];
    }
    [[nodiscard]] Counter& fault(FaultReason reason) {
        return fault_reasons[static_cast<std::size_t>(reason)];
    }

    // Sums over all domains; the unit keeps no counter of its own for these, so that a translation
    // touches one cache line, not two.
    [[nodiscard]] std::uint64_t iotlb_hits() const;
    [[nodiscard]] std::uint64_t iotlb_misses() const;

    void clear();
};

}  // namespace umbra::vtd
