// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a unit counts: invalidations by kind, granularity and path, wait descriptors, queue errors,
// faults, and for each guest domain how its IOTLB entries fare. Operators read the counters while
// the machine runs and may clear them; guests never see them.
//
// Threading: every function may be called from any thread. A counter is one relaxed atomic word, so
// counting takes no lock, and a reader sees each counter at some recent moment, not all of them at
// the same one.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "plugin/vtd/fault_reason.h"
#include "plugin/vtd/invalidation.h"
#include "plugin/vtd/types.h"

namespace umbra::vtd {

class Counter {
  public:
    void add(std::uint64_t amount = 1) { value_.fetch_add(amount, std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }
    void clear() { value_.store(0, std::memory_order_relaxed); }

  private:
    std::atomic<std::uint64_t> value_{0};
};

// How software asked for it: a descriptor in the queue, or the CCMD or IOTLB register.
enum class InvalidationPath : std::uint8_t { queue, registers };
inline constexpr std::size_t kInvalidationPaths = 2;

// What made the invalidation queue stop (IQE).
enum class QueueError : std::uint8_t {
    tail_out_of_range,  // head or tail beyond the end of the queue
    fetch_failed,       // the descriptor is not in guest memory
    bad_type,           // no descriptor of legacy mode, or one of a capability that is off
    reserved_field,     // a reserved bit is set, or a field has a value beyond its capability
};
inline constexpr std::size_t kQueueErrors = 4;

// Lower-case names as they appear in reports: "iotlb-page", "queue", "bad-type".
[[nodiscard]] const char* name_of(InvalidationKind kind);
[[nodiscard]] const char* name_of(InvalidationPath path);
[[nodiscard]] const char* name_of(QueueError error);

// One guest domain. Takes a cache line of its own, so that DMA threads of different domains do not
// slow each other down.
struct alignas(64) DomainCounters {
    Counter iotlb_hits;
    Counter iotlb_misses;
    Counter domain_invalidations;  // IOTLB, domain-selective
    Counter page_invalidations;    // IOTLB, page-selective
    Counter pages_invalidated;     // 4 KiB pages that those covered
    Counter faults;                // of DMA that was translated by this domain's table

    [[nodiscard]] bool any() const;
    void clear();
};

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

struct Counters {
    // Invalidations carried out, [kind][path].
    std::array<std::array<Counter, kInvalidationPaths>, kInvalidationKinds> invalidations;
    // Register commands that were ignored because they asked for something the unit cannot do.
    Counter register_commands_refused;

    Counter tail_writes;       // writes to IQT
    Counter wait_descriptors;  // of which, each on its own account:
    Counter wait_status;       //   wrote a status
    Counter wait_interrupt;    //   asked for the completion interrupt
    Counter wait_fence;        //   had the fence bit
    Counter wait_status_lost;  // status address is not guest RAM; nothing was written
    std::array<Counter, kQueueErrors> queue_errors;

    // By fault reason code; DMA and interrupt requests. Each fault is in exactly one of the four
    // counters after it as well.
    std::array<Counter, kFaultReasonCodes> faults;
    Counter faults_recorded;
    Counter faults_collapsed;   // equal to the newest record, which software has yet to clear
    Counter faults_overflowed;  // no free recording register, or overflow still set
    Counter faults_suppressed;  // an FPD bit forbade recording

    DomainTable domains;

    [[nodiscard]] const Counter& invalidation(InvalidationKind kind, InvalidationPath path) const {
        return invalidations[static_cast<std::size_t>(kind)][static_cast<std::size_t>(path)];
    }
    [[nodiscard]] Counter& invalidation(InvalidationKind kind, InvalidationPath path) {
        return invalidations[static_cast<std::size_t>(kind)][static_cast<std::size_t>(path)];
    }
    [[nodiscard]] const Counter& queue_error(QueueError error) const {
        return queue_errors[static_cast<std::size_t>(error)];
    }
    [[nodiscard]] Counter& queue_error(QueueError error) {
        return queue_errors[static_cast<std::size_t>(error)];
    }
    [[nodiscard]] const Counter& fault(FaultReason reason) const {
        return faults[static_cast<std::size_t>(reason)];
    }
    [[nodiscard]] Counter& fault(FaultReason reason) {
        return faults[static_cast<std::size_t>(reason)];
    }

    // Sums over all domains; the unit keeps no counter of its own for these, so that a translation
    // touches one cache line, not two.
    [[nodiscard]] std::uint64_t iotlb_hits() const;
    [[nodiscard]] std::uint64_t iotlb_misses() const;

    void clear();
};

}  // namespace umbra::vtd
