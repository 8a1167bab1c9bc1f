// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/missing_leaves.h"

namespace umbra::shadow {

// ---- The set ----

void MissingLeaves::reset_to_all(const Mirror& mirror) {
    reset();
    mirror_ = &mirror;
    add(IovaRange::everything(), Kind::plain);
}

void MissingLeaves::reset() {
    missing_.clear();
    promising_.clear();
    bad_.clear();
    lost_.clear();
    put_off_.clear();
    starts_ = {};
    size_ = 0;
    mirror_ = nullptr;
}

void MissingLeaves::add(IovaRange range, Kind kind) {
    mirror_->leaves(range, [&](LeafRef leaf) {
        if (missing_.add(leaf)) {
            ++size_;
            promising_.add(leaf);
        }
        if (kind == Kind::lost) {
            lost_.add(leaf);
        }
    });
}

void MissingLeaves::put_off(IovaRange range, Kind kind) {
    add(range, kind);
    mirror_->leaves(range, [this](LeafRef leaf) { put_off_.add(leaf); });
}

void MissingLeaves::remove(LeafRef leaf) {
    if (missing_.remove(leaf)) {
        --size_;
        promising_.remove(leaf);
        bad_.remove(leaf);
        lost_.remove(leaf);
        put_off_.remove(leaf);
    }
}

void MissingLeaves::remove(IovaRange range) {
    mirror_->leaves(range, [this](LeafRef leaf) { remove(leaf); });
}

void MissingLeaves::mark_bad(IovaRange range) {
    mirror_->leaves(range, [this](LeafRef leaf) {
        if (promising_.remove(leaf)) {
            bad_.add(leaf);
        }
    });
}

void MissingLeaves::unmark_bad() {
    if (!bad_.empty()) {
        promising_ = missing_;
        bad_.clear();
    }
}

// ---- What was put off ----

LeafRef MissingLeaves::first_put_off() const {
    return put_off_.empty() ? LeafRef{} : LeafSet::leaf_at(*mirror_, put_off_.next(0));
}

void MissingLeaves::tried(IovaRange range) {
    mirror_->leaves(range, [this](LeafRef leaf) { put_off_.remove(leaf); });
}

// ---- Passes ----

bool MissingLeaves::start_part(IovaRange range, Pass& pass) const {
    if (range == IovaRange::everything()) {
        // Part 0 goes from where the pass before gave up to the end, part 1 from the start to
        // there.
        pass.next = pass.part == 0 ? pass.from : 0;
        pass.last = pass.part == 0 ? LeafSet::kNowhere : pass.from - 1;
        return pass.part == 0 || (pass.part == 1 && pass.from != 0);
    }
    // Part 0 has the tables that start in the range, or in the 2 MiB block of the range's start.
    // Each other part has one table of a higher level that starts before, and has an entry for the
    // start of the range.
    const Iova first_table = range.first.align_down(vtd::level_span(2));
    if (pass.part == 0) {
        pass.next = first_table.value();
        pass.last = range.last.value() | (kPageSize - 1);
        return true;
    }
    for (unsigned level = pass.part + 1; level <= vtd::kMaxLevels; ++level, ++pass.part) {
        const Table* table = mirror_->table_at(range.first, level);
        if (table != nullptr && table->level == level && table->base < first_table) {
            pass.next = LeafSet::place(*table, vtd::level_index(range.first, level));
            pass.last = LeafSet::after(*table) - 1;
            return true;
        }
    }
    return false;
}

LeafRef MissingLeaves::next_run(Which which, IovaRange range, Pass& pass) {
    if (!pass.started) {
        pass = {.started = true, .from = start_of(which)};
        if (!start_part(range, pass)) {
            return {};
        }
    }
    const LeafSet& leaves = leaves_of(which);
    while (true) {
        const LeafSet::Place place = leaves.next(pass.next);
        if (place == LeafSet::kNowhere || place > pass.last) {
            if (!next_part(range, pass)) {
                return {};
            }
            continue;
        }
        pass.next = place + 1;
        const LeafRef leaf = LeafSet::leaf_at(*mirror_, place);
        if (!leaf) {
            continue;
        }
        const Table& table = *leaf.table;
        if (leaf.iova() > range.last) {
            pass.next = LeafSet::after(table);
            continue;
        }
        if (leaf.iova() + (leaf.bytes() - 1) < range.first) {
            pass.next = LeafSet::place(table, vtd::level_index(range.first, table.level));
            continue;
        }
        // A run is in the set as a whole, and is tried once: at its first leaf, or at its first
        // leaf in the range. The run's other leaves in the same table need not be looked at.
        const Iova end = mirror_->end_of_run(leaf);
        pass.next = end <= table.last() ? LeafSet::place(table, vtd::level_index(end, table.level))
                                        : LeafSet::after(table);
        if (!leaf.joined() || leaf.iova() <= range.first) {
            return leaf;
        }
    }
}

const LeafSet& MissingLeaves::leaves_of(Which which) const {
    switch (which) {
        case Which::missing:
            return missing_;
        case Which::promising:
            return promising_;
        case Which::bad:
            return bad_;
        case Which::lost:
            return lost_;
    }
    return missing_;
}

void MissingLeaves::give_up(Which which, IovaRange range, const Pass& pass) {
    if (range == IovaRange::everything()) {
        start_of(which) = pass.next;
    }
}

}  // namespace umbra::shadow
