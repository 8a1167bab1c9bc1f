// SPDX-License-Identifier: GPL-2.0-or-later
//
// The leaf entries of one table. Those that changed are taken over into the mirror, and the leaves
// that go and come are emitted.
//
// Nearly every entry that ever changes is a 4 KiB leaf of the lowest level, next to others that
// changed in the same way. So entries of that level are done in stretches.
//
// A leaf beyond the domain's budget (Options::max_mappings) is refused, and its copy stays 0. Each
// later sync that concerns it finds it again.
//
// Threading: one thread at a time.
#pragma once

#include <cstdint>

#include "plugin/shadow/delta_builder.h"
#include "plugin/shadow/entry_span.h"
#include "plugin/shadow/sync_run.h"

namespace umbra::shadow {

class LeafSync {
  public:
    // Both outlive the object.
    LeafSync(SyncRun& run, DeltaBuilder& delta) : run_(run), leaves_(run.leaves), delta_(delta) {}

    // Syncs entries of a table of the lowest level.
    void sync(const EntrySpan& entries);

    // ---- One leaf, of any level ----

    // The guest has the leaf `value`, which is `entry`, at `slot`. The copy has nothing there.
    void add(Table& table, unsigned slot, std::uint64_t value, const vtd::DecodedEntry& entry);
    // The leaf `entry` that the copy has at `slot` is gone.
    void remove(Table& table, unsigned slot, const vtd::DecodedEntry& entry);
    // The copy has the leaf `old`, and the guest has `entry` in its place, under tables that grant
    // `access`. Whether the host maps the two in the same way.
    [[nodiscard]] bool is_same(const Table& table, const vtd::DecodedEntry& old,
                               const vtd::DecodedEntry& entry, Access access) const {
        return entry.kind == vtd::DecodedEntry::Kind::leaf && entry.address == old.address &&
               leaves_.same_on_host(old.access & table.access, entry.access & access, old.address,
                                    table.entry_bytes());
    }
    // All leaves of a table without tables below it are gone. DeltaBuilder::all_mapped_whole() has
    // just been true for them. The caller takes the table out of the mirror.
    void remove_all(Table& table);

    [[nodiscard]] bool budget_used_up() const {
        return leaves_.count >= run_.unit.options.max_mappings;
    }
    // The leaf at `range`, or a table of leaves, is beyond the budget.
    void refuse(IovaRange range);

  private:
    // The leaf at `entries.first` is gone. Removes it, and the leaves right after it that are not
    // present any more. DeltaBuilder::all_mapped_whole() has just been true for them. Returns the
    // last slot. `value` is the guest's entry at the first one.
    [[nodiscard]] unsigned remove_stretch(const EntrySpan& entries, std::uint64_t value);
    // The guest has the leaf `value` at `entries.first`, and the copy has none there. Takes it
    // over, and the new leaves right after it, while they are in RAM and within the budget. Returns
    // the slot after the last one; that is `entries.first` if the first leaf needs add().
    [[nodiscard]] unsigned add_stretch(const EntrySpan& entries, std::uint64_t value);
    // `value` is the leaf before the entries, and lies in `run`. Takes over the new leaves that go
    // on from there in the same run. Returns the slot after the last one.
    [[nodiscard]] unsigned copy_contiguous(const EntrySpan& entries, std::uint64_t value,
                                           const RamRun& run) const;
    // The slot before which copy_contiguous() has to stop at the latest.
    [[nodiscard]] unsigned contiguous_end(const EntrySpan& entries, std::uint64_t value,
                                          const RamRun& run) const;

    SyncRun& run_;
    DomainLeaves& leaves_;
    DeltaBuilder& delta_;
};

inline void LeafSync::add(Table& table, unsigned slot, std::uint64_t value,
                          const vtd::DecodedEntry& entry) {
    if (budget_used_up()) {
        refuse(table.entry_range(slot));
        return;
    }
    table.copy[slot] = value;
    ++table.leaves;
    ++leaves_.count;
    ++run_.tally.leaves_mapped;
    run_.tally.pages_mapped += table.entry_bytes() >> kPageShift;
    delta_.emit_addition(table, slot, entry);
}

inline void LeafSync::remove(Table& table, unsigned slot, const vtd::DecodedEntry& entry) {
    delta_.emit_removal(table, slot, entry);
    table.copy[slot] = 0;
    --table.leaves;
    --leaves_.count;
    ++run_.tally.leaves_unmapped;
    run_.tally.pages_unmapped += table.entry_bytes() >> kPageShift;
}

}  // namespace umbra::shadow
