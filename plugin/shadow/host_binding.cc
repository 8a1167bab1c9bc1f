// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/host_binding.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "plugin/shadow/range_list.h"

namespace umbra::shadow {
namespace {

// A pass of retries ends after this many failures in a row.
constexpr unsigned kFailuresInRow = 16;
// New maps are not tried any more after as many.
constexpr unsigned kNewFailuresInRow = 64;

// Between two looks at the clock, as many new maps are made as have been made before, within these
// limits; so few that are quick cost no look, and however slow they are, the time is not overdrawn
// by much more than was used. What a map costs is mostly the memory that it pins.
constexpr std::size_t kFirstMaps = 8;
constexpr std::size_t kMostMaps = 64;
constexpr std::uint64_t kMostBytes = std::uint64_t{16} << 20;

// The first ones of `mappings`, which is not empty; `bytes` is how large they are together.
std::span<const HostMapping> some_of(std::span<const HostMapping> mappings, std::size_t most,
                                     std::uint64_t& bytes) {
    most = std::min(most, mappings.size());
    std::size_t count = 0;
    bytes = 0;
    do {
        bytes += mappings[count].bytes;
        ++count;
    } while (count < most && bytes < kMostBytes);
    return mappings.first(count);
}

std::uint64_t bytes_of(std::span<const HostMapping> mappings) {
    std::uint64_t bytes = 0;
    for (const HostMapping& mapping : mappings) {
        bytes += mapping.bytes;
    }
    return bytes;
}

vtd::DecodedEntry decode(const Mirror& mirror, LeafRef leaf) {
    return mirror.format().decode(leaf.table->level, leaf.table->copy[leaf.slot]);
}

IovaRange range_of(Iova iova, std::uint64_t bytes) {
    return {iova, iova + (bytes - 1)};
}

}  // namespace

HostBinding::HostBinding(HostMapper& mapper, telemetry::HostCounters& device,
                         telemetry::HostCounters& unit)
    : mapper_(mapper), sinks_{&device, &unit, nullptr} {}

void HostBinding::apply() {
    tally_.counts.live_mappings = static_cast<std::uint64_t>(tally_.live);
    tally_.counts.pinned_bytes = static_cast<std::uint64_t>(tally_.pinned);
    tally_.counts.missing_leaves = static_cast<std::uint64_t>(tally_.missing);
    for (telemetry::HostCounters* sink : sinks_) {
        if (sink == nullptr) {
            continue;
        }
        *sink += tally_.counts;
    }
    tally_ = {};
}

// ---- Coming and going ----

void HostBinding::join(const Mirror& mirror, const RamSnapshot& ram, TroubleLog& log,
                       telemetry::HostCounters& domain) {
    mirror_ = &mirror;
    ram_ = &ram;
    log_ = &log;
    sinks_[2] = &domain;
    // What is stuck comes along with the host container.
    domain.live_mappings += sinks_[0]->live_mappings;
    domain.pinned_bytes += sinks_[0]->pinned_bytes;
    miss_everything();
    apply();
}

void HostBinding::miss_everything() {
    first_pass_ = true;
    missing_from_ = 0;
    lost_.clear();
    put_off_.clear();
    mirror_->leaves(IovaRange::everything(), [this](LeafRef leaf) { mark_missing(leaf); });
}

void HostBinding::forget() {
    tally_.live = -static_cast<std::int64_t>(sinks_[0]->live_mappings);
    tally_.pinned = -static_cast<std::int64_t>(sinks_[0]->pinned_bytes);
    held_.clear();
    stuck_.clear();
    miss_everything();
    apply();
}

void HostBinding::leave() {
    if (!held_.empty() || !stuck_.empty()) {
        IovaRange range = held_.empty() ? stuck_.front().range() : held_.range();
        for (const Stuck& stuck : stuck_) {
            range = RangeList::hull(range, stuck.range());
        }
        if (unmap(range.first, range.last - range.first + 1).ok()) {
            stuck_.clear();
        } else {
            // Then each mapping by itself, so that what can go goes.
            mirror_->leaves(IovaRange::everything(), [this](LeafRef leaf) {
                if (leaf.joined() || is_missing(leaf)) {
                    return;
                }
                const std::uint64_t bytes = mirror_->end_of_run(leaf) - leaf.iova();
                if (const HostResult result = unmap(leaf.iova(), bytes); !result.ok()) {
                    stuck_.push_back({leaf.iova(), bytes, 1, bytes});
                    log_->report(Trouble::unmap_refused, range_of(leaf.iova(), bytes),
                                 result.error());
                }
            });
        }
    }
    std::int64_t stuck_mappings = 0;
    std::int64_t stuck_bytes = 0;
    for (const Stuck& stuck : stuck_) {
        stuck_mappings += static_cast<std::int64_t>(stuck.mappings);
        stuck_bytes += static_cast<std::int64_t>(stuck.mapped_bytes);
    }
    tally_.live = stuck_mappings - static_cast<std::int64_t>(sinks_[0]->live_mappings);
    tally_.pinned = stuck_bytes - static_cast<std::int64_t>(sinks_[0]->pinned_bytes);
    tally_.counts.unmap.bytes = static_cast<std::uint64_t>(-tally_.pinned);
    tally_.missing = -static_cast<std::int64_t>(sinks_[0]->missing_leaves);
    missing_.clear();
    lost_.clear();
    put_off_.clear();
    apply();
    sinks_[2]->live_mappings -= static_cast<std::uint64_t>(stuck_mappings);
    sinks_[2]->pinned_bytes -= static_cast<std::uint64_t>(stuck_bytes);
    sinks_[2] = nullptr;
    mirror_ = nullptr;
    ram_ = nullptr;
    log_ = nullptr;
}

// ---- Host calls ----

HostResult HostBinding::unmap(Iova iova, std::uint64_t bytes) {
    ++tally_.counts.unmap.calls;
    const HostResult result = mapper_.unmap(iova, bytes);
    if (result.ok()) {
        held_.unmapped(range_of(iova, bytes));
        limit_hit_ = false;
        if (!stuck_.empty()) {
            trim_stuck(iova, bytes);
        }
    } else {
        ++tally_.counts.unmap.failures;
    }
    return result;
}

bool HostBinding::map(const HostMapping& mapping) {
    const HostResult result = mapper_.map(mapping);
    if (!result.ok()) {
        not_mapped(mapping, result.error());
        return false;
    }
    mapped({&mapping, 1}, mapping.bytes);
    return true;
}

void HostBinding::mapped(std::span<const HostMapping> mappings, std::uint64_t bytes) {
    tally_.counts.map.calls += mappings.size();
    tally_.counts.map.bytes += bytes;
    tally_.pinned += static_cast<std::int64_t>(bytes);
    tally_.live += static_cast<std::int64_t>(mappings.size());
    if (!mappings.empty()) {
        held_.mapped({mappings.front().iova, mappings.back().end() - 1});
    }
    // The host would have refused one if anything were left there.
    for (std::size_t i = 0; i < mappings.size() && !stuck_.empty(); ++i) {
        trim_stuck(mappings[i].iova, mappings[i].bytes);
    }
}

void HostBinding::not_mapped(const HostMapping& mapping, int error) {
    ++tally_.counts.map.calls;
    ++tally_.counts.map.failures;
    limit_hit_ = limit_hit_ || error == ENOSPC;
    const IovaRange range = range_of(mapping.iova, mapping.bytes);
    // What is to stay of a split whose unmap was refused is still there as part of that.
    const bool still_there =
        error == EEXIST && is_stuck(range) && lost_.has(mirror_->leaf_at(mapping.iova));
    if (!still_there) {
        log_->report(Trouble::map_failed, range, error);
    }
}

void HostBinding::execute(const Plan& plan, const Delta& delta, Deadline& deadline) {
    for (const UnmapCall& call : plan.calls()) {
        unmap_call(plan, call);
    }
    map_additions(delta, deadline);
    apply();
}

void HostBinding::unmap_call(const Plan& plan, const UnmapCall& call) {
    const HostResult together = unmap(call.iova, call.bytes);
    for (const UnmapPart& part : plan.parts(call)) {
        // What is refused as a whole may go in parts.
        const HostResult result =
            together.ok() || call.parts == 1 ? together : unmap(part.iova, part.bytes);
        if (result.ok()) {
            unmapped(plan, part);
        } else {
            refused(plan, part, result.error());
        }
    }
}

void HostBinding::unmapped(const Plan& plan, const UnmapPart& part) {
    tally_.live -= static_cast<std::int64_t>(part.mappings);
    tally_.pinned -= static_cast<std::int64_t>(part.mapped_bytes);
    tally_.counts.unmap.bytes += part.mapped_bytes;
    if (part.rests != 0) {
        ++tally_.counts.splits;
    }
    for (const Rest& rest : plan.rests(part)) {
        const bool was_missing = is_missing(mirror_->leaf_at(rest.mapping.iova));
        if (was_missing) {
            // It was not mapped here, so it did not go either.
            tally_.live += rest.first_of_mapping ? 1 : 0;
            tally_.pinned += static_cast<std::int64_t>(rest.mapping.bytes);
            tally_.counts.unmap.bytes -= rest.mapping.bytes;
        }
        if (map(rest.mapping)) {
            if (!missing_.empty()) {
                clear_missing(rest.mapping.iova, rest.mapping.bytes);
            }
        } else if (!was_missing) {
            mark_missing(rest.mapping.iova, rest.mapping.bytes, Missing::lost);
        }
    }
}

void HostBinding::refused(const Plan& plan, const UnmapPart& part, int error) {
    log_->report(Trouble::unmap_refused, range_of(part.iova, part.bytes), error);
    Stuck stuck = {part.iova, part.bytes, part.mappings, part.mapped_bytes};
    // The rests stay mapped as part of what is stuck, and are mapped again when that has gone.
    for (const Rest& rest : plan.rests(part)) {
        if (is_missing(mirror_->leaf_at(rest.mapping.iova))) {
            stuck.mappings -= rest.first_of_mapping ? 1 : 0;
            stuck.mapped_bytes -= rest.mapping.bytes;
        } else {
            mark_missing(rest.mapping.iova, rest.mapping.bytes, Missing::lost);
        }
    }
    stuck_.push_back(stuck);
}

bool HostBinding::gave_up() const {
    return limit_hit_ || failures_in_row_ >= kNewFailuresInRow;
}

void HostBinding::map_additions(const Delta& delta, Deadline& deadline) {
    const std::span<const HostMapping> additions(delta.additions);
    const Missing how = delta.remaps ? Missing::lost : Missing::plain;
    std::size_t done = 0;
    for (const std::size_t index : delta.in_pieces) {
        map_each(additions.subspan(done, index - done), how, deadline);
        done = index + 1;
        const HostMapping& leaf = additions[index];
        if (gave_up()) {
            mark_missing(leaf.iova, leaf.bytes, how);
            continue;
        }
        if (deadline.was_over()) {
            put_off(leaf, how);
            continue;
        }
        const bool ok = map_pieces(mirror_->leaf_at(leaf.iova));
        if (!ok) {
            mark_missing(leaf.iova, leaf.bytes, how);
        }
        count_new(ok);
        (void)deadline.is_over();
    }
    map_each(additions.subspan(done), how, deadline);
}

void HostBinding::map_each(std::span<const HostMapping> mappings, Missing how, Deadline& deadline) {
    std::size_t most = kFirstMaps;
    while (!mappings.empty() && !gave_up() && !deadline.was_over()) {
        std::uint64_t bytes = 0;
        const std::span<const HostMapping> some = some_of(mappings, most, bytes);
        const MapProgress progress = mapper_.map_all(some);
        const std::span<const HostMapping> done = some.first(progress.mapped);
        mapped(done, progress.result.ok() ? bytes : bytes_of(done));
        if (progress.mapped != 0) {
            count_new(true);
        }
        mappings = mappings.subspan(progress.mapped);
        if (!progress.result.ok()) {
            const HostMapping& failed = mappings.front();
            not_mapped(failed, progress.result.error());
            mark_missing(failed.iova, failed.bytes, how);
            count_new(false);
            mappings = mappings.subspan(1);
        }
        if (!mappings.empty()) {
            (void)deadline.is_over();
            most = std::min(2 * most, kMostMaps);
        }
    }
    for (const HostMapping& mapping : mappings) {
        if (gave_up()) {
            mark_missing(mapping.iova, mapping.bytes, how);
        } else {
            put_off(mapping, how);
        }
    }
}

void HostBinding::put_off(const HostMapping& mapping, Missing how) {
    mark_missing(mapping.iova, mapping.bytes, how);
    mirror_->leaves(range_of(mapping.iova, mapping.bytes),
                    [this](LeafRef leaf) { put_off_.add(leaf); });
}

bool HostBinding::map_put_off(Deadline& deadline) {
    while (!put_off_.empty() && !gave_up()) {
        if (!deadline.allows_more()) {
            apply();
            return false;
        }
        const LeafRef leaf = LeafSet::leaf_at(*mirror_, put_off_.next(0));
        if (!leaf) {
            break;
        }
        const LeafRef first = mirror_->first_of_run(leaf);
        const Iova end = mirror_->end_of_run(leaf);
        const bool ok = try_run(first, end);
        if (!ok) {
            // Now it is one of those that failed.
            mirror_->leaves({first.iova(), end - 1},
                            [this](LeafRef failed) { put_off_.remove(failed); });
        }
        count_new(ok);
    }
    put_off_.clear();
    apply();
    return true;
}

bool HostBinding::map_pieces(LeafRef leaf) {
    const vtd::DecodedEntry entry = decode(*mirror_, leaf);
    bool ok = true;
    std::uint64_t mapped = 0;
    std::uint64_t mappings = 0;
    ram_->pieces(entry.address, leaf.bytes(), entry.access & leaf.table->access,
                 [&](const RamPiece& piece) {
                     ok = ok && map({leaf.iova() + piece.offset, piece.bytes, piece.host,
                                     entry.address + piece.offset, piece.access});
                     if (ok) {
                         mapped += piece.bytes;
                         ++mappings;
                     }
                 });
    if (ok || mappings == 0) {
        return ok;
    }
    if (const HostResult undone = unmap(leaf.iova(), leaf.bytes()); undone.ok()) {
        tally_.live -= static_cast<std::int64_t>(mappings);
        tally_.pinned -= static_cast<std::int64_t>(mapped);
        tally_.counts.unmap.bytes += mapped;
    } else {
        log_->report(Trouble::unmap_refused, range_of(leaf.iova(), leaf.bytes()), undone.error());
        stuck_.push_back({leaf.iova(), leaf.bytes(), mappings, mapped});
    }
    return false;
}

// ---- What is stuck ----

bool HostBinding::is_stuck(IovaRange range) const {
    return std::any_of(stuck_.begin(), stuck_.end(), [&](const Stuck& stuck) {
        return range.overlaps(range_of(stuck.iova, stuck.bytes));
    });
}

void HostBinding::trim_stuck(Iova iova, std::uint64_t bytes) {
    const Iova end = iova + bytes;
    for (std::size_t i = 0; i < stuck_.size();) {
        Stuck& stuck = stuck_[i];
        if (stuck.end() <= iova || stuck.iova >= end) {
            ++i;
            continue;
        }
        Stuck before = stuck;
        Stuck after = stuck;
        before.bytes = stuck.iova < iova ? iova - stuck.iova : 0;
        after.iova = end;
        after.bytes = stuck.end() > end ? stuck.end() - end : 0;
        if (before.bytes != 0) {
            stuck = before;
            if (after.bytes != 0) {
                after.mappings = 0;
                after.mapped_bytes = 0;
                stuck_.push_back(after);
            }
            ++i;
        } else if (after.bytes != 0) {
            stuck = after;
            ++i;
        } else {
            tally_.live -= static_cast<std::int64_t>(stuck.mappings);
            tally_.pinned -= static_cast<std::int64_t>(stuck.mapped_bytes);
            tally_.counts.unmap.bytes += stuck.mapped_bytes;
            stuck = stuck_.back();
            stuck_.pop_back();
        }
    }
}

bool HostBinding::retry_unmaps(IovaRange range) {
    bool any = false;
    unsigned failures = 0;
    ++unmap_round_;
    for (std::size_t i = 0; i < stuck_.size();) {
        Stuck& stuck = stuck_[i];
        if (stuck.round == unmap_round_ || !range.overlaps(range_of(stuck.iova, stuck.bytes))) {
            ++i;
            continue;
        }
        stuck.round = unmap_round_;
        ++tally_.counts.unmap.retries;
        if (unmap(stuck.iova, stuck.bytes).ok()) {
            // Others may have gone or come apart with it, so that nothing is where it was.
            any = true;
            i = 0;
        } else if (++failures == kFailuresInRow) {
            break;
        }
    }
    apply();
    return any;
}

// ---- What is missing ----

void HostBinding::mark_missing(LeafRef leaf) {
    tally_.missing += missing_.add(leaf) ? 1 : 0;
}

void HostBinding::mark_missing(Iova iova, std::uint64_t bytes, Missing how) {
    mirror_->leaves(range_of(iova, bytes), [&](LeafRef leaf) {
        mark_missing(leaf);
        if (how == Missing::lost) {
            lost_.add(leaf);
        }
    });
}

void HostBinding::clear_missing(LeafRef leaf) {
    if (!missing_.remove(leaf)) {
        return;
    }
    --tally_.missing;
    lost_.remove(leaf);
    put_off_.remove(leaf);
}

void HostBinding::clear_missing(Iova iova, std::uint64_t bytes) {
    mirror_->leaves(range_of(iova, bytes), [this](LeafRef leaf) { clear_missing(leaf); });
}

void HostBinding::removing(LeafRef leaf, std::uint64_t mappings, std::uint64_t mapped_bytes) {
    if (!is_missing(leaf)) {
        return;
    }
    clear_missing(leaf);
    // The removal will take these away again.
    tally_.live += static_cast<std::int64_t>(mappings);
    tally_.pinned += static_cast<std::int64_t>(mapped_bytes);
    tally_.counts.unmap.bytes -= mapped_bytes;
}

void HostBinding::merged(std::uint64_t before, std::uint64_t after) {
    tally_.live -= static_cast<std::int64_t>(before - after);
    apply();
}

bool HostBinding::retry_maps(IovaRange range, RetryPass& pass, Deadline& deadline) {
    if (limit_hit_) {
        first_pass_ = false;
        return true;
    }
    const bool in_time = retry(missing_, range, missing_from_, pass, deadline);
    if (range == IovaRange::everything()) {
        first_pass_ = first_pass_ && !in_time;
    }
    return in_time;
}

bool HostBinding::retry_lost(RetryPass& pass, Deadline& deadline) {
    return limit_hit_ || retry(lost_, IovaRange::everything(), lost_from_, pass, deadline);
}

bool HostBinding::retry(const LeafSet& leaves, IovaRange range, LeafSet::Place& from,
                        RetryPass& pass, Deadline& deadline) {
    if (!pass.started) {
        pass = {.started = true, .from = from};
        if (!start_part(range, pass)) {
            return true;
        }
    }
    bool in_time = true;
    while (const LeafRef leaf = next_run(leaves, range, pass)) {
        if (!deadline.allows_more()) {
            pass.next = LeafSet::place(*leaf.table, leaf.slot);
            in_time = false;
            break;
        }
        const LeafRef first = mirror_->first_of_run(leaf);
        if (!first_pass_ || lost_.has(first)) {
            ++tally_.counts.map.retries;
        }
        if (try_run(first, mirror_->end_of_run(leaf))) {
            pass.failures = 0;
        } else if (limit_hit_ || ++pass.failures == kFailuresInRow) {
            if (range == IovaRange::everything()) {
                from = pass.next;
            }
            break;
        }
    }
    apply();
    return in_time;
}

bool HostBinding::start_part(IovaRange range, RetryPass& pass) const {
    if (range == IovaRange::everything()) {
        // From where the pass before gave up to the end, and from the start to there.
        pass.next = pass.part == 0 ? pass.from : 0;
        pass.last = pass.part == 0 ? LeafSet::kNowhere : pass.from - 1;
        return pass.part == 0 || (pass.part == 1 && pass.from != 0);
    }
    // The tables that start in the range, or with the lowest one in it; then those of higher levels
    // that start before and have an entry for the start of the range.
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

LeafRef HostBinding::next_run(const LeafSet& leaves, IovaRange range, RetryPass& pass) const {
    while (true) {
        const LeafSet::Place place = leaves.next(pass.next);
        if (place == LeafSet::kNowhere || place > pass.last) {
            ++pass.part;
            if (!start_part(range, pass)) {
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
        // A run is among them as a whole, and it is tried once: by its first leaf, or the first one
        // in the range. What follows in the same table need not be looked at again.
        const Iova end = mirror_->end_of_run(leaf);
        pass.next = end <= table.last() ? LeafSet::place(table, vtd::level_index(end, table.level))
                                        : LeafSet::after(table);
        if (!leaf.joined() || leaf.iova() <= range.first) {
            return leaf;
        }
    }
}

bool HostBinding::try_run(LeafRef first, Iova end) {
    const std::uint64_t bytes = end - first.iova();
    if (!stuck_.empty()) {
        // The run may reach beyond the range, to where something is in its way.
        retry_unmaps(range_of(first.iova(), bytes));
    }
    const vtd::DecodedEntry entry = decode(*mirror_, first);
    const RamPiece piece = ram_->whole(entry.address, bytes, entry.access & first.table->access);
    // Only a leaf by itself can lie in several runs of RAM.
    const bool ok = piece.bytes != 0
                        ? map({first.iova(), bytes, piece.host, entry.address, piece.access})
                        : map_pieces(first);
    if (ok) {
        clear_missing(first.iova(), bytes);
    }
    return ok;
}

void HostBinding::visit_mappings(const HostMapper::Visitor& visit) const {
    if (mirror_ == nullptr) {
        return;
    }
    mirror_->leaves(IovaRange::everything(), [&](LeafRef leaf) {
        if (is_missing(leaf)) {
            return;
        }
        const vtd::DecodedEntry entry = decode(*mirror_, leaf);
        ram_->pieces(entry.address, leaf.bytes(), entry.access & leaf.table->access,
                     [&](const RamPiece& piece) {
                         visit({leaf.iova() + piece.offset, piece.bytes, piece.host,
                                entry.address + piece.offset, piece.access});
                     });
    });
}

}  // namespace umbra::shadow
