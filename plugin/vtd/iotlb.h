// SPDX-License-Identifier: GPL-2.0-or-later
//
// The IOTLB: second-stage translations of emulated devices' DMA, by domain-id and page
// (specification 6.2.4). It holds pages of 4 KiB, 2 MiB and 1 GiB as the guest's tables have them,
// in a fixed amount of memory; a new translation displaces another one if its place is taken.
// Absent and faulty translations are not cached.
//
// An invalidation drops an entry if and only if the entry's domain matches and its page overlaps
// the range. So a stale entry stays until the guest invalidates it (or its place is needed), as on
// hardware, and the entry is gone when the invalidation returns.
//
// Structure: a power-of-two number of sets, each one cache line of three entries under a sequence
// lock. A look-up is wait-free: if a writer is at work in the set, it reports a miss, and the
// caller walks the tables. Only writers that meet in one set exclude each other.
//
// Fills race with invalidations as the context cache describes; the protocol is the same. The
// generation must be taken before the context entry was looked up, since that is where the table's
// address and the domain-id come from:
//
//     auto generation = iotlb.generation();
//     context = ...;  walk = second_stage.walk(context.table, ...);
//     iotlb.insert(context.domain, iova, walk, generation);
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "plugin/vtd/second_stage.h"
#include "plugin/vtd/spec/field.h"
#include "plugin/vtd/types.h"

namespace umbra::vtd {

// A cached translation, as far as it matters to one IOVA.
struct IotlbHit {
    Gpa address;                  // where the IOVA itself lands
    std::uint64_t page_mask = 0;  // bytes minus one of the page: 0xfff, 0x1fffff or 0x3fffffff
    // Check with SecondStage::serves; a denial must be walked again.
    Access granted = Access::none;
};

class Iotlb {
  public:
    // Counts invalidations. Only equality means anything.
    using Generation = std::uint64_t;

    static constexpr std::size_t kEntriesPerSet = 3;
    static constexpr std::size_t kDefaultSets = 2048;

    // `sets` is a power of two. Each takes 64 bytes.
    explicit Iotlb(std::size_t sets = kDefaultSets);

    [[nodiscard]] Generation generation() const {
        return generation_.load(std::memory_order_seq_cst);
    }

    // From any thread, wait-free.
    [[nodiscard]] std::optional<IotlbHit> lookup(DomainId domain, Iova iova) const;

    // Remembers what a walk for `iova` found; it must have read the tables after `generation` was
    // taken. Nothing happens if it is not cacheable, if there was an invalidation since, or if
    // another thread is filling the same set. From any thread; does not block.
    void insert(DomainId domain, Iova iova, const WalkResult& walk, Generation generation);

    // When one of these returns, no look-up finds an entry that it covers, until the page is walked
    // anew. From any thread; may wait for a fill in progress.
    void invalidate_all();
    void invalidate_domain(DomainId domain);
    // `range` as IovaRange::pages() makes it.
    void invalidate_pages(DomainId domain, IovaRange range);

    // Entries now held. Exact while no other thread fills or invalidates.
    [[nodiscard]] std::size_t size() const;
    [[nodiscard]] std::size_t capacity() const { return sets_.size() * kEntriesPerSet; }

  private:
    // Which page of which domain; 0 if free.
    struct Tag {
        using Page = spec::Field<63, 28>;  // the page's IOVA in units of 4 KiB
        using Domain = spec::Field<27, 12, DomainId>;
        using Level = spec::Field<3, 1, unsigned>;  // of the leaf
        using InUse = spec::Flag<0>;
    };
    // Where the page lies, and what the mapping allows.
    struct Value {
        using Address = spec::AddressField<63, 12, Gpa>;
        using Granted = spec::Field<1, 0, Access>;
    };
    struct Entry {
        std::atomic<std::uint64_t> tag{0};
        std::atomic<std::uint64_t> value{0};
    };
    struct alignas(64) Set {
        std::atomic<std::uint32_t> sequence{0};  // odd while a writer is at work
        std::atomic<std::uint32_t> next_victim{0};
        std::array<Entry, kEntriesPerSet> entries;
    };

    static std::uint64_t tag_for(DomainId domain, Iova iova, unsigned level);
    static DomainId domain_of(std::uint64_t tag);
    static IovaRange range_of(std::uint64_t tag);

    [[nodiscard]] std::size_t set_for(DomainId domain, Iova iova, unsigned level) const;

    static bool try_lock(Set& set);
    static void lock(Set& set);
    static void unlock(Set& set);

    std::atomic<std::uint32_t>& population(DomainId domain);
    void drop_domain(DomainId domain);
    template <class Predicate>
    void drop_if(Set& set, Predicate covered);

    std::vector<Set> sets_;
    std::atomic<Generation> generation_{0};
    // Entries held, by the low bits of the domain-id. Most invalidations on a machine whose devices
    // are passed through concern domains that no emulated device uses; they end here.
    static constexpr std::size_t kPopulations = 64;
    std::array<std::atomic<std::uint32_t>, kPopulations> populations_{};
};

}  // namespace umbra::vtd
