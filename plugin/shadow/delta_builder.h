// SPDX-License-Identifier: GPL-2.0-or-later
//
// Gathers the leaves that go and come during one run in the unit's delta, and joins those that
// touch. A delta that is full, or out of order, is flushed: the host carries it out.
//
// A leaf that is pending in the delta is in the mirror already, but the host has not been asked for
// it. So nobody can know yet whether it will be missing. This class keeps the rule that follows for
// all parts of a sync: pending leaves are flushed before any question that they can change the
// answer to. The parts ask this class, and have no other way to ask:
//
//   all_mapped_whole()  can leaves be removed without a look at each?
//   misses_any()        does any device miss a leaf that is about to change its size?
//
// A delta ascends, as the walk does. A leaf that belongs before a pending one has the delta flushed
// first. That happens, for example, when the invalidation of a page concerns its whole table.
//
// Threading: one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "plugin/shadow/bindings.h"
#include "plugin/shadow/delta.h"
#include "plugin/shadow/mirror.h"
#include "plugin/shadow/ram_snapshot.h"
#include "plugin/shadow/sync_run.h"
#include "plugin/vtd/interrupt_range.h"

namespace umbra::shadow {

class DeltaBuilder {
  public:
    // A join block without borders: leaves are joined wherever they lie.
    static constexpr std::uint64_t kNoBorders = std::uint64_t{1} << 63;

    // Both outlive the object. The unit's delta is empty, and the caller flushes it at the end.
    DeltaBuilder(SyncRun& run, Bindings& bindings)
        : run_(run), delta_(run.unit.delta), leaves_(run.leaves), bindings_(bindings) {}

    // Two leaves become one host mapping only if they lie in one aligned block of this size. It is
    // a power of two, and one page at first. The guest can unmap by itself each block that it
    // mapped by itself; so no mapping reaches across blocks, or it would have to go as a whole.
    void set_join_block(std::uint64_t bytes) { join_block_ = bytes; }
    [[nodiscard]] std::uint64_t join_block() const { return join_block_; }

    // ---- What is missing on the host ----

    // Whether every binding has each leaf from IOVA `from` on mapped, and mapped in one piece.
    [[nodiscard]] bool all_mapped_whole(Iova from) {
        return leaves_.irregular == 0 && !missing_from(from);
    }
    // Whether any binding misses any leaf that starts in `range`.
    [[nodiscard]] bool misses_any(IovaRange range);

    // Whether any binding has leaves in `range` in other pieces than the domain counts.
    [[nodiscard]] bool any_hole(IovaRange range) const { return bindings_.any_hole(range); }

    // ---- Leaves that go ----

    // The leaf `entry`, which the mirror has at `slot`, is about to leave the mirror.
    void emit_removal(Table& table, unsigned slot, const vtd::DecodedEntry& entry);
    // Leaves of one table that go together. The entries `first` and `last` are two of them, and no
    // other leaf lies in between.
    struct Run {
        Table& table;
        unsigned first;
        unsigned last;
        bool first_joined;    // the leaf at `first` belonged to the mapping before it
        std::uint64_t count;  // leaves
        std::uint64_t begun;  // those of them that were not joined
    };
    // The run has left the mirror. all_mapped_whole() was true for it just before.
    void emit_removal(const Run& run);

    // ---- Leaves that come ----

    // The leaf `entry` has come into the mirror at `slot`.
    void emit_addition(Table& table, unsigned slot, const vtd::DecodedEntry& entry);

  private:
    // What decides which additions become one host mapping.
    struct Joining {
        const Options& options;
        std::uint64_t block;  // see set_join_block()

        // Whether `before`, an addition or null, and `mapping`, which lies in `run`, can be one
        // host call.
        [[nodiscard]] bool can_join(const HostMapping* before, const HostMapping& mapping,
                                    const RamRun& run) const;
    };

  public:
    // Additions in ascending order, for a loop that is hot: it keeps at hand what emit_addition()
    // looks up in the delta each time. Nothing else is emitted while an object is in use.
    class Additions {
      public:
        // No addition is before `first`.
        Additions(DeltaBuilder& builder, Iova first)
            : builder_(builder),
              delta_(builder.delta_),
              joining_{builder.run_.unit.options, builder.join_block_} {
            builder.order_addition(first);
            reopen();
        }
        // Adds `mapping`, which lies in `run`. True if it was joined to the addition before it.
        bool add(const HostMapping& mapping, const RamRun& run) {
            if (joining_.can_join(before_, mapping, run)) {
                before_->bytes += mapping.bytes;
                return true;
            }
            before_ = &delta_.additions.push_back(mapping);
            --room_;
            return false;
        }
        [[nodiscard]] bool full() const { return room_ == 0; }
        // The mirror has all leaves that were added.
        void flush() {
            builder_.flush();
            reopen();
        }

      private:
        void reopen() {
            room_ = delta_.room_for_additions();
            before_ = delta_.open_addition();
        }

        DeltaBuilder& builder_;
        Delta& delta_;
        const Joining joining_;
        HostMapping* before_ = nullptr;  // the addition that the next one can be joined to
        std::size_t room_ = 0;
    };

    // ---- Leaves that change their size ----

    // Leaves that begin `before` host mappings have become one leaf, which counts as `after` host
    // mappings. No host call is made for it.
    void merged(std::uint64_t before, std::uint64_t after) { bindings_.merged(before, after); }

    // ---- Carrying out ----

    // Carries out the delta on every binding.
    void flush();
    void flush_if_full() {
        if (delta_.full()) [[unlikely]] {
            flush();
        }
    }
    // Whether additions from here on were mapped before (see Delta::remaps). Nothing is pending.
    void set_remaps(bool remaps) { delta_.remaps = remaps; }

  private:
    // Flushes the delta unless a removal, or an addition, at `iova` can be carried out after all
    // that is pending.
    void order_removal(Iova iova) {
        if (!delta_.can_remove(iova)) [[unlikely]] {
            flush();
        }
    }
    void order_addition(Iova iova) {
        if (!delta_.can_add(iova)) [[unlikely]] {
            flush();
        }
    }
    // Whether any binding can miss a leaf at `iova` or after it. Pending additions there are
    // carried out first. Pending additions before `iova` cannot matter. The rests of pending
    // removals do not matter either: they are made of the leaves that the mirror has when they are
    // carried out.
    [[nodiscard]] bool missing_from(Iova iova) {
        order_removal(iova);
        return bindings_.any_missing();
    }

    void push_addition(const HostMapping& mapping) {
        order_addition(mapping.iova);
        delta_.additions.push_back(mapping);
    }
    void push_removal(const Removal& removal);
    // The same as emit_addition() for a leaf that is not in one stretch of RAM as a whole.
    void emit_irregular(const Table& table, unsigned slot, const vtd::DecodedEntry& entry);
    // Whether the last pending removal ends at `iova`, inside a host mapping that goes on there.
    [[nodiscard]] bool cut_before(Iova iova) const {
        return !delta_.removals.empty() && delta_.removals.back().end() == iova &&
               delta_.removals.back().joined_after;
    }
    // The leaf at `slot` goes. If the leaf after it is joined to it, that one is joined no longer;
    // then the result is true.
    bool cut_after(Table& table, unsigned slot) {
        const LeafRef next = leaves_.joined_successor(table, slot);
        if (next) {
            next.table->joined.clear(next.slot);
        }
        return static_cast<bool>(next);
    }
    [[nodiscard]] static bool holds_interrupts(const HostMapping& mapping) {
        return IovaRange{Iova(vtd::kInterruptRangeFirst), Iova(vtd::kInterruptRangeLast)}.overlaps(
            {mapping.iova, mapping.end() - 1});
    }

    SyncRun& run_;
    Delta& delta_;
    DomainLeaves& leaves_;
    Bindings& bindings_;
    std::uint64_t join_block_ = kPageSize;
};

inline bool DeltaBuilder::Joining::can_join(const HostMapping* before, const HostMapping& mapping,
                                            const RamRun& run) const {
    // Both lie in one run of RAM: two runs can touch each other and yet move apart later. No
    // host maps the interrupt range: what lies there is joined among itself, so that it needs no
    // host call and cuts no other mapping in pieces.
    return before != nullptr && before->guest + before->bytes == mapping.guest &&
           before->end() == mapping.iova && before->guest >= run.first &&
           before->access == mapping.access && options.coalesce &&
           before->bytes + mapping.bytes <= options.coalesce_limit &&
           holds_interrupts(*before) == holds_interrupts(mapping) &&
           (!mapping.iova.is_aligned(block) || holds_interrupts(mapping));
}

inline void DeltaBuilder::emit_addition(Table& table, unsigned slot,
                                        const vtd::DecodedEntry& entry) {
    const std::uint64_t bytes = table.entry_bytes();
    const RamRun* run = leaves_.ram.run_around(entry.address, bytes);
    const Access allowed =
        run != nullptr ? leaves_.ram.allowed_in(*run, entry.access & table.access) : Access::none;
    if (allowed == Access::none) {
        emit_irregular(table, slot, entry);
        return;
    }
    const HostMapping mapping = {table.entry_iova(slot), bytes,
                                 run->host + (entry.address - run->first), entry.address, allowed};
    const Joining joining = {run_.unit.options, join_block_};
    if (HostMapping* before = delta_.open_addition(); joining.can_join(before, mapping, *run)) {
        before->bytes += bytes;
        leaves_.mark_joined(table, slot, slot + 1);
    } else {
        push_addition(mapping);
    }
}

inline void DeltaBuilder::push_removal(const Removal& removal) {
    if (!delta_.removals.empty() && delta_.removals.back().end() == removal.iova) {
        Removal& before = delta_.removals.back();
        before.bytes += removal.bytes;
        before.mapped_bytes += removal.mapped_bytes;
        before.mappings += removal.mappings;
        before.joined_after = removal.joined_after;
        return;
    }
    delta_.removals.push_back(removal);
}

inline void DeltaBuilder::emit_removal(Table& table, unsigned slot,
                                       const vtd::DecodedEntry& entry) {
    Removal removal = {.iova = table.entry_iova(slot),
                       .bytes = table.entry_bytes(),
                       .joined_before = table.joined.test(slot)};
    const bool any_missing = missing_from(removal.iova);
    const Access access = entry.access & table.access;
    if (leaves_.irregular == 0 ||
        leaves_.ram.whole(entry.address, removal.bytes, access).bytes != 0) {
        removal.mapped_bytes = removal.bytes;
        removal.mappings = removal.joined_before || cut_before(removal.iova) ? 0 : 1;
        table.joined.clear(slot);
        removal.joined_after = cut_after(table, slot);
    } else {
        --leaves_.irregular;
        leaves_.ram.pieces(entry.address, removal.bytes, access, [&](const RamPiece& piece) {
            removal.mapped_bytes += piece.bytes;
            ++removal.mappings;
        });
    }
    if (any_missing) [[unlikely]] {
        bindings_.removing({&table, slot}, removal.mappings, removal.mapped_bytes);
    }
    if (removal.mapped_bytes != 0) {
        push_removal(removal);
    }
}

inline void DeltaBuilder::emit_removal(const Run& run) {
    const std::uint64_t unit = run.table.entry_bytes();
    Removal removal = {.iova = run.table.entry_iova(run.first),
                       .bytes = (run.last - run.first + 1) * unit,
                       .mapped_bytes = run.count * unit,
                       .joined_before = run.first_joined};
    // A leaf that was cut off from the mapping before it began none.
    removal.mappings = run.begun - (cut_before(removal.iova) ? 1 : 0);
    removal.joined_after = cut_after(run.table, run.last);
    push_removal(removal);
}

}  // namespace umbra::shadow
