// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/iotlb.h"

#include <algorithm>
#include <bit>
#include <thread>

namespace umbra::vtd {

namespace {

// Smallest page first: most translations are of 4 KiB pages.
constexpr unsigned kLeafLevels = 3;

// True if the widest table does not reach `iova`. Such an address is never cached.
constexpr bool beyond_tables(std::uint64_t iova) {
    return !fits_address_width(Iova(iova), kMaxLevels);
}

}  // namespace

Iotlb::Iotlb(std::size_t sets) : sets_(std::bit_ceil(sets)) {}

std::uint64_t Iotlb::tag_for(DomainId domain, Iova iova, unsigned level) {
    return Tag::Page::place(iova.align_down(level_span(level)).value() / kPageSize) |
           Tag::Domain::place(domain) | Tag::Level::place(level) | Tag::InUse::place(true);
}

DomainId Iotlb::domain_of(std::uint64_t tag) {
    return Tag::Domain::get(tag);
}

IovaRange Iotlb::range_of(std::uint64_t tag) {
    const Iova first(Tag::Page::get(tag) * kPageSize);
    return {first, first + (level_span(Tag::Level::get(tag)) - 1)};
}

// Neighbouring pages fall into neighbouring sets; domains and page sizes are spread, so that equal
// IOVAs of several domains do not meet.
std::size_t Iotlb::set_for(DomainId domain, Iova iova, unsigned level) const {
    constexpr std::uint64_t kSpread = 0x9e3779b97f4a7c15;
    const std::uint64_t space = static_cast<std::uint64_t>(domain) << 2 | level;
    const std::uint64_t page = iova.value() >> level_shift(level);
    return ((page ^ page >> 17) + (space * kSpread >> 40)) & (sets_.size() - 1);
}

bool Iotlb::try_lock(Set& set) {
    std::uint32_t sequence = set.sequence.load(std::memory_order_relaxed);
    if ((sequence & 1) != 0 ||
        !set.sequence.compare_exchange_strong(sequence, sequence + 1, std::memory_order_acquire,
                                              std::memory_order_relaxed)) {
        return false;
    }
    // No store to the entries may become visible before the odd sequence.
    std::atomic_thread_fence(std::memory_order_release);
    return true;
}

// Waits for the few stores of another writer.
void Iotlb::lock(Set& set) {
    while (!try_lock(set)) {
        std::this_thread::yield();
    }
}

void Iotlb::unlock(Set& set) {
    set.sequence.fetch_add(1, std::memory_order_release);
}

std::atomic<std::uint32_t>& Iotlb::population(DomainId domain) {
    return populations_[static_cast<std::size_t>(domain) % kPopulations];
}

std::optional<IotlbHit> Iotlb::lookup(DomainId domain, Iova iova) const {
    if (beyond_tables(iova.value())) {
        return std::nullopt;
    }
    for (unsigned level = 1; level <= kLeafLevels; ++level) {
        const Set& set = sets_[set_for(domain, iova, level)];
        const std::uint64_t tag = tag_for(domain, iova, level);
        const std::uint32_t sequence = set.sequence.load(std::memory_order_acquire);
        if ((sequence & 1) != 0) {
            continue;
        }
        for (const Entry& entry : set.entries) {
            if (entry.tag.load(std::memory_order_relaxed) != tag) {
                continue;
            }
            const std::uint64_t value = entry.value.load(std::memory_order_relaxed);
            std::atomic_thread_fence(std::memory_order_acquire);
            if (set.sequence.load(std::memory_order_relaxed) != sequence) {
                break;
            }
            const std::uint64_t mask = level_span(level) - 1;
            return IotlbHit{Value::Address::get(value) + (iova.value() & mask), mask,
                            Value::Granted::get(value)};
        }
    }
    return std::nullopt;
}

// A fill and a concurrent invalidation meet in the single order of all seq_cst operations. The fill
// counts and stores the entry, then checks the generation. The invalidation changes the generation,
// then looks at count and entries. So either the invalidation sees the entry (and waits for the
// set's lock to drop it), or the fill sees the new generation. The fill then takes the entry back,
// before any look-up could have found it.
void Iotlb::insert(DomainId domain, Iova iova, const WalkResult& walk, Generation generation) {
    if (!walk.ok || !walk.cacheable || this->generation() != generation) {
        return;
    }
    const std::uint64_t tag = tag_for(domain, iova, walk.level);
    Set& set = sets_[set_for(domain, iova, walk.level)];
    if (!try_lock(set)) {
        return;
    }

    const auto place = [&]() -> Entry& {
        Entry* free = nullptr;
        for (Entry& entry : set.entries) {
            const std::uint64_t held = entry.tag.load(std::memory_order_relaxed);
            if (held == tag) {
                return entry;
            }
            if (held == 0) {
                free = &entry;
            }
        }
        if (free != nullptr) {
            return *free;
        }
        const std::uint32_t victim = set.next_victim.load(std::memory_order_relaxed);
        set.next_victim.store((victim + 1) % kEntriesPerSet, std::memory_order_relaxed);
        return set.entries[victim];
    };
    Entry& entry = place();
    const std::uint64_t displaced = entry.tag.load(std::memory_order_relaxed);
    population(domain).fetch_add(1, std::memory_order_seq_cst);
    entry.tag.store(tag, std::memory_order_seq_cst);
    entry.value.store(Value::Address::place(walk.address.align_down(walk.page_mask + 1)) |
                          Value::Granted::place(walk.granted),
                      std::memory_order_relaxed);
    if (displaced != 0) {
        population(domain_of(displaced)).fetch_sub(1, std::memory_order_relaxed);
    }
    if (this->generation() != generation) {
        entry.tag.store(0, std::memory_order_relaxed);
        population(domain).fetch_sub(1, std::memory_order_relaxed);
    }
    unlock(set);
}

template <class Predicate>
void Iotlb::drop_if(Set& set, Predicate covered) {
    const auto concerned = [&covered](const Entry& entry) {
        const std::uint64_t tag = entry.tag.load(std::memory_order_seq_cst);
        return tag != 0 && covered(tag);
    };
    if (std::none_of(set.entries.begin(), set.entries.end(), concerned)) {
        return;
    }
    lock(set);
    for (Entry& entry : set.entries) {
        if (concerned(entry)) {
            population(domain_of(entry.tag.load(std::memory_order_relaxed)))
                .fetch_sub(1, std::memory_order_relaxed);
            entry.tag.store(0, std::memory_order_relaxed);
        }
    }
    unlock(set);
}

void Iotlb::invalidate_all() {
    generation_.fetch_add(1, std::memory_order_seq_cst);
    if (size() == 0) {
        return;
    }
    for (Set& set : sets_) {
        drop_if(set, [](std::uint64_t) { return true; });
    }
}

void Iotlb::invalidate_domain(DomainId domain) {
    generation_.fetch_add(1, std::memory_order_seq_cst);
    if (population(domain).load(std::memory_order_seq_cst) != 0) {
        drop_domain(domain);
    }
}

void Iotlb::drop_domain(DomainId domain) {
    for (Set& set : sets_) {
        drop_if(set, [domain](std::uint64_t tag) { return domain_of(tag) == domain; });
    }
}

void Iotlb::invalidate_pages(DomainId domain, IovaRange range) {
    generation_.fetch_add(1, std::memory_order_seq_cst);
    if (population(domain).load(std::memory_order_seq_cst) == 0) {
        return;
    }
    if (beyond_tables(range.extent())) {
        drop_domain(domain);
        return;
    }
    if (beyond_tables(range.first.value())) {
        return;
    }
    // A range of few pages is looked up page by page, for each page size. A larger range costs less
    // as a pass over all sets.
    const std::uint64_t pages = range.extent() / kPageSize + 1;
    if (pages * 2 <= sets_.size()) {
        for (unsigned level = 1; level <= kLeafLevels; ++level) {
            const std::uint64_t step = level_span(level);
            for (std::uint64_t offset = 0; offset <= range.extent(); offset += step) {
                const Iova page = range.first + offset;
                const std::uint64_t tag = tag_for(domain, page, level);
                drop_if(sets_[set_for(domain, page, level)],
                        [tag](std::uint64_t held) { return held == tag; });
            }
        }
        return;
    }
    for (Set& set : sets_) {
        drop_if(set, [domain, range](std::uint64_t tag) {
            return domain_of(tag) == domain && range_of(tag).overlaps(range);
        });
    }
}

std::size_t Iotlb::size() const {
    std::size_t total = 0;
    for (const auto& count : populations_) {
        total += count.load(std::memory_order_seq_cst);
    }
    return total;
}

}  // namespace umbra::vtd
