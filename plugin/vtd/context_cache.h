// SPDX-License-Identifier: GPL-2.0-or-later
//
// The context cache: valid context entries by source-id, as the unit last read them
// (specification 6.2.2). Absent and faulty entries are not cached.
//
// Everything that translation needs of an entry fits into one 64-bit word, so a look-up is one
// atomic load and never waits. Writers (fills and invalidations) are rare and share a mutex.
//
// A fill can race with an invalidation: a thread reads the tables, the guest changes them and
// invalidates, and only then does the thread store the entry that it read. The protocol against it:
//
//     auto generation = cache.generation();     // before the tables are read
//     auto context = tables.lookup(root, source);
//     cache.insert(source, context, generation);  // dropped if anything was invalidated since
#pragma once

#include <array>
#include <atomic>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

#include "plugin/vtd/context_tables.h"
#include "plugin/vtd/spec/field.h"
#include "plugin/vtd/types.h"

namespace umbra::vtd {

class ContextCache {
  public:
    // Counts invalidations. Only equality means anything.
    using Generation = std::uint64_t;

    ContextCache();

    [[nodiscard]] Generation generation() const {
        return generation_.load(std::memory_order_acquire);
    }

    // `present` is false on a miss. From any thread, wait-free.
    [[nodiscard]] ContextLookup lookup(SourceId source) const {
        return unpack(source, slots_->at(slot_of(source)).load(std::memory_order_acquire));
    }

    // Remembers `context`, which must stem from tables read after `generation` was taken. Nothing
    // happens if it is not `present` or if there was an invalidation since. From any thread.
    void insert(SourceId source, const ContextLookup& context, Generation generation);

    // When one of these returns, no look-up finds an entry that it covers, until such an entry is
    // read from the tables anew. From any thread.
    void invalidate_all();
    void invalidate_domain(DomainId domain);
    // The domain-id of such a command plays no part: an entry is found by source-id alone.
    void invalidate_devices(SourceMatch devices);

  private:
    // Direct-mapped by the low 13 bits of the source-id: 32 buses before the first collision. The
    // other three bits are the tag in the word.
    static constexpr unsigned kIndexBits = 13;
    static constexpr std::size_t kSlots = std::size_t{1} << kIndexBits;
    // Slots are grouped by bus, so that an invalidation looks only where something was stored.
    static constexpr std::size_t kSlotsPerGroup = 256;
    static constexpr std::size_t kGroups = kSlots / kSlotsPerGroup;

    // What a slot holds; 0 if it is empty.
    struct Word {
        using DomainHigh = spec::Field<63, 52, unsigned>;
        using Table = spec::AddressField<51, 12, Gpa>;
        using DomainLow = spec::Field<11, 8, unsigned>;
        using Levels = spec::Field<7, 6, unsigned>;  // minus 2: never 0 if in use
        using Type = spec::Field<5, 4, TranslationType>;
        using FaultDisable = spec::Flag<3>;
        using Tag = spec::Field<2, 0, unsigned>;
        using All = spec::Layout<64, DomainHigh, Table, DomainLow, Levels, Type, FaultDisable, Tag>;
    };
    // A source-id as the cache takes it apart: place, and what tells those of one place apart.
    struct Key {
        using Tag = spec::Field<15, kIndexBits, unsigned>;
        using Slot = spec::Field<kIndexBits - 1, 0, std::size_t>;
    };
    static_assert(Key::Tag::kLargest == Word::Tag::kLargest);
    // A domain-id, in the two pieces that a word holds.
    struct DomainParts {
        using High = spec::Field<15, 4, unsigned>;
        using Low = spec::Field<3, 0, unsigned>;
    };

    static std::uint64_t pack(SourceId source, const ContextLookup& context);
    static std::size_t slot_of(SourceId source) { return Key::Slot::get(source.value()); }
    static unsigned tag_of(SourceId source) { return Key::Tag::get(source.value()); }
    static SourceId source_of(std::size_t slot, std::uint64_t word) {
        return SourceId(static_cast<std::uint16_t>(Key::Tag::place(Word::Tag::get(word)) | slot));
    }
    static DomainId domain_of(std::uint64_t word) {
        return static_cast<DomainId>(DomainParts::High::place(Word::DomainHigh::get(word)) |
                                     DomainParts::Low::place(Word::DomainLow::get(word)));
    }
    static ContextLookup unpack(SourceId source, std::uint64_t word) {
        ContextLookup context;
        if (word == 0 || Word::Tag::get(word) != tag_of(source)) {
            return context;
        }
        context.present = true;
        context.fault_processing_disabled = Word::FaultDisable::get(word);
        context.type = Word::Type::get(word);
        context.domain = domain_of(word);
        context.table = Word::Table::get(word);
        context.levels = Word::Levels::get(word) + 2;
        return context;
    }

    // Empties the used slots for which `covered(source, word)` holds, and counts an invalidation.
    template <class Predicate>
    void drop_if(Predicate covered);

    using Slots = std::array<std::atomic<std::uint64_t>, kSlots>;
    std::unique_ptr<Slots> slots_;
    std::atomic<Generation> generation_{0};
    std::mutex writers_;
    // Bit n: group n may hold an entry. Guarded by writers_.
    std::bitset<kGroups> used_groups_;
};

}  // namespace umbra::vtd
