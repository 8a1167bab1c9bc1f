// SPDX-License-Identifier: GPL-2.0-or-later
//
// The leaves of a mirror that one device's host mapper does not have:
//
//   missing   the host refused the leaf, or was not asked for it yet
//   lost      a missing leaf that had been mapped, and had to go for a moment only
//   put off   a missing leaf for which there was no time
//   bad       a missing leaf of which the host said that it cannot map that address
//
// A run of joined leaves is missing, lost or put off as a whole or not at all. A leaf leaves the
// set before it leaves the mirror.
//
// A pass goes over missing runs, or over lost ones, and can stop between any two of them. The set
// may change while a pass is stopped: the pass knows a place, not a leaf.
//
// Threading: one thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "plugin/shadow/leaf_set.h"
#include "plugin/shadow/mirror.h"

namespace umbra::shadow {

class MissingLeaves {
  public:
    // ---- The set ----

    // Every leaf of `mirror` is missing, none is lost or put off. The mirror must live until the
    // next reset.
    void reset_to_all(const Mirror& mirror);
    // No leaf is missing, and there is no mirror.
    void reset();

    // Whether leaves that become missing were mapped before.
    enum class Kind : std::uint8_t { plain, lost };
    // All leaves that start in `range` become missing. put_off() also puts them off.
    void add(IovaRange range, Kind kind);
    void put_off(IovaRange range, Kind kind);
    // The leaves were mapped, or leave the mirror.
    void remove(LeafRef leaf);
    void remove(IovaRange range);
    // The missing leaves in `range` are bad, or are so no longer as far as anybody knows.
    void mark_bad(IovaRange range);
    void unmark_bad();

    [[nodiscard]] bool empty() const { return missing_.empty(); }
    [[nodiscard]] std::uint64_t size() const { return size_; }
    [[nodiscard]] bool has(LeafRef leaf) const { return missing_.has(leaf); }
    [[nodiscard]] bool any_lost() const { return !lost_.empty(); }
    [[nodiscard]] bool is_lost(LeafRef leaf) const { return lost_.has(leaf); }
    [[nodiscard]] bool any_put_off() const { return !put_off_.empty(); }
    [[nodiscard]] bool is_put_off(LeafRef leaf) const { return put_off_.has(leaf); }
    [[nodiscard]] bool any_promising() const { return !promising_.empty(); }
    [[nodiscard]] bool any_bad() const { return !bad_.empty(); }
    [[nodiscard]] bool is_bad(LeafRef leaf) const { return bad_.has(leaf); }

    // ---- What was put off ----

    // A leaf that is put off; none if there is none.
    [[nodiscard]] LeafRef first_put_off() const;
    // The leaves in `range` were tried, and are missing like any other.
    void tried(IovaRange range);
    // The same for all leaves that were put off.
    void tried_all() { put_off_.clear(); }

    // ---- Passes ----

    struct Pass {
        bool started = false;
        LeafSet::Place from = 0;  // where the pass began, if it is over everything
        unsigned part = 0;        // number of the part under way
        LeafSet::Place next = 0;  // place to look at next in that part
        LeafSet::Place last = 0;  // last place of that part
        unsigned failures = 0;    // in a row; counted by the caller
    };
    // Which leaves a pass goes over: all that are missing, those of them that are not bad, those
    // that are bad, or those that are lost.
    enum class Which : std::uint8_t { missing, promising, bad, lost };

    // The next run of `pass` in `range`, named by the run's first leaf or by its first leaf in the
    // range; none after the last run. A pass over everything begins where an earlier pass over the
    // same set gave up, and goes round from there.
    [[nodiscard]] LeafRef next_run(Which which, IovaRange range, Pass& pass);
    // There was no time for `leaf`: the pass goes on with this leaf.
    static void stop_before(LeafRef leaf, Pass& pass) {
        pass.next = LeafSet::place(*leaf.table, leaf.slot);
    }
    // Ends the pass. After a pass over everything, the next one begins where this one stands.
    void give_up(Which which, IovaRange range, const Pass& pass);

  private:
    // A pass goes through one part after the other, each a stretch of places. Sets the pass to the
    // start of part `pass.part`, or of the next part that exists; false if no part is left.
    [[nodiscard]] bool start_part(IovaRange range, Pass& pass) const;
    // Sets the pass to the start of the next part; false if no part is left.
    [[nodiscard]] bool next_part(IovaRange range, Pass& pass) const {
        ++pass.part;
        return start_part(range, pass);
    }
    [[nodiscard]] LeafSet::Place& start_of(Which which) {
        return starts_[static_cast<std::size_t>(which)];
    }
    [[nodiscard]] const LeafSet& leaves_of(Which which) const;

    const Mirror* mirror_ = nullptr;
    LeafSet missing_;
    // Each missing leaf is in one of these two.
    LeafSet promising_;
    LeafSet bad_;
    // All leaves of these two are missing.
    LeafSet lost_;
    LeafSet put_off_;
    std::uint64_t size_ = 0;
    std::array<LeafSet::Place, 4> starts_{};  // where the next passes over everything begin
};

}  // namespace umbra::shadow
