// SPDX-License-Identifier: GPL-2.0-or-later
//
// A walk of a guest's tables beside the mirror. The walk compares each table page with its copy,
// takes over the entries that differ, and emits the leaves that go and come.
//
// The walk goes through IOVAs in ascending order, so it can stop anywhere and be resumed at an IOVA
// later. Below that IOVA the mirror is as the guest's tables are, and above it as it was.
//
// A host mapping whose translation did not change is not touched. That holds if the guest wrote the
// same entry again, if it moved the table page, and if it replaced a large leaf by small ones with
// the same translation or the other way round (see leaf_resize.h).
//
// A change can concern more than the range that the guest named. A large leaf of which a part
// changed goes as a whole. An entry that leads to a table limits the access to all below it. The
// walk follows such a change to its end, and its result says how far that reached.
//
// An object lives for one call of Domain::run().
//
// Threading: one thread at a time.
#pragma once

#include <cstdint>

#include "plugin/shadow/delta_builder.h"
#include "plugin/shadow/entry_span.h"
#include "plugin/shadow/leaf_sync.h"
#include "plugin/shadow/sync_run.h"

namespace umbra::shadow {

class TableSync {
  public:
    // Both outlive the object.
    TableSync(SyncRun& run, DeltaBuilder& delta)
        : run_(run), mirror_(run.leaves.mirror), delta_(delta), leaf_sync_(run, delta) {}

    struct Result {
        bool done = false;  // with all of `widened`
        Iova resume_at;     // the first IOVA that is left, unless done
        IovaRange widened;  // the range, and around it all that a change in it concerns
    };
    // Walks `range` until it is done or the slice is over. Each object does at least one table.
    // IOVAs beyond the last one that the tables translate are done without any work.
    [[nodiscard]] Result sync(IovaRange range);
    // True once the slice is over. Then sync() must not be called again.
    [[nodiscard]] bool slice_is_over() const { return over_; }

  private:
    // A parameter `range` names the IOVAs to look at. Each function that returns a bool returns
    // false if the slice is over; then resume_at_ is the first IOVA that is left.

    // `range` lies within the table.
    [[nodiscard]] bool sync_table(Table& table, IovaRange range);
    // `range` can reach beyond the table.
    [[nodiscard]] bool sync_child(Table& child, IovaRange range);
    // Compares the entries one by one.
    [[nodiscard]] bool sync_entries(const EntrySpan& entries, IovaRange range);
    // The table has no tables below it, and only `lines` differ (see CompareFunctions).
    [[nodiscard]] bool sync_lines(const EntrySpan& entries, std::uint64_t lines, IovaRange range);
    // The table has tables below it. Those that the entries lead to are synced as well.
    [[nodiscard]] bool sync_words(const EntrySpan& entries, std::uint64_t lines, IovaRange range);
    // Syncs the tables that entries 64 * `word` to 64 * `word` + 63 lead to, if their bits are set
    // in `entries`. These entries themselves did not change.
    [[nodiscard]] bool sync_children(Table& table, unsigned word, std::uint64_t entries,
                                     IovaRange range);

    // Entry `slot` has become `value`.
    [[nodiscard]] bool change_entry(Table& table, unsigned slot, std::uint64_t value,
                                    IovaRange range);
    // Entry `slot`, of which nothing is left in the mirror, has become `value`, which is `entry`.
    [[nodiscard]] bool fill_entry(Table& table, unsigned slot, std::uint64_t value,
                                  const vtd::DecodedEntry& entry, IovaRange range);

    // The entry that leads to `child` leads to another page or grants another access. Another
    // access concerns all tables below; each follows when the walk comes to it.
    [[nodiscard]] bool change_table(Table& child, const vtd::DecodedEntry& entry, IovaRange range);
    static void mark_access_changed(Table& table);
    // Removes the leaves that are mapped with the old access and are not the same with the new one.
    // The comparison that follows finds the leaves that come.
    void apply_access(const EntrySpan& entries);

    // Entry `slot`, of which nothing is left in the mirror, has become the table `entry`.
    [[nodiscard]] bool add_table(Table& table, unsigned slot, std::uint64_t value,
                                 const vtd::DecodedEntry& entry, IovaRange range);
    // The table is gone with all below it. If the slice is over, the rest of the table stays in the
    // mirror, and so does the entry that leads to it.
    [[nodiscard]] bool remove_table(Table& table);

    // A table is done, and with it all IOVAs up to `done`. True if the slice is over.
    [[nodiscard]] bool time_is_up(Iova done);

    SyncRun& run_;
    Mirror& mirror_;
    DeltaBuilder& delta_;
    LeafSync leaf_sync_;

    bool over_ = false;
    Iova resume_at_;
    IovaRange widened_{};
};

}  // namespace umbra::shadow
