// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/host_binding.h"

#include <algorithm>
#include <cerrno>
#include <optional>

#include "plugin/shadow/host_pieces.h"
#include "plugin/shadow/range_list.h"

namespace umbra::shadow {
namespace {

// A pass of map retries ends after this many refusals in a row for want of memory, or of leaves
// that were refused before for the same reason. Unmap retries end after this many in all.
constexpr unsigned kMostFailures = 16;

// New maps are made in groups, with a look at the clock between two groups. A group is twice as
// large as the group before, within these limits. So a few quick maps cost no look, and slow maps
// do not overdraw the time by much more than was used. The cost of a map is mostly that of the
// memory that it pins.
constexpr std::size_t kFirstMaps = 8;
constexpr std::size_t kMostMaps = 64;
constexpr std::uint64_t kMostBytes = std::uint64_t{16} << 20;

// The first group of `mappings`, which is not empty. Sets `bytes` to the group's total size.
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

vtd::DecodedEntry decode(const Mirror& mirror, LeafRef leaf) {
    return mirror.format().decode(leaf.table->level, leaf.table->copy[leaf.slot]);
}

IovaRange range_of(Iova iova, std::uint64_t bytes) {
    return {iova, iova + (bytes - 1)};
}
IovaRange range_of(const HostMapping& mapping) {
    return range_of(mapping.iova, mapping.bytes);
}

}  // namespace

HostBinding::HostBinding(HostMapper& mapper, telemetry::HostCounters& device,
                         telemetry::HostCounters& unit)
    : calls_(mapper, device, unit), holes_(mapper.holes()) {}

// ---- Coming and going ----

void HostBinding::join(const Mirror& mirror, const RamSnapshot& ram, TroubleLog& log,
                       telemetry::HostCounters& domain) {
    mirror_ = &mirror;
    ram_ = &ram;
    log_ = &log;
    // Stuck stretches come along with the host container.
    calls_.tally().join(domain);
    first_pass_ = true;
    missing_.reset_to_all(mirror);
    apply();
}

void HostBinding::forget() {
    calls_.lost_everything();
    cut_.clear();
    first_pass_ = true;
    missing_.reset_to_all(*mirror_);
    apply();
}

void HostBinding::leave() {
    if (!calls_.held().empty() || has_stuck()) {
        unmap_everything();
    }
    const StuckUnmaps::Mappings left = calls_.stuck().mappings();
    calls_.tally().all_went_but(left.count, left.bytes);
    cut_.clear();
    missing_.reset();
    apply();
    calls_.tally().leave();
    mirror_ = nullptr;
    ram_ = nullptr;
    log_ = nullptr;
}

void HostBinding::unmap_everything() {
    IovaRange range = calls_.held().range();
    calls_.stuck().visit([&](IovaRange stuck) {
        range = range.first > range.last ? stuck : RangeList::hull(range, stuck);
    });
    if (calls_.unmap(range).ok()) {
        return;
    }
    // One mapping at a time, so that one refusal does not keep the other mappings in place.
    mirror_->leaves(IovaRange::everything(), [this](LeafRef leaf) {
        if (leaf.joined() || is_missing(leaf)) {
            return;
        }
        const IovaRange run = {leaf.iova(), mirror_->end_of_run(leaf) - 1};
        if (const HostResult result = calls_.unmap(run); !result.ok()) {
            add_stuck(run, {1, run.last - run.first + 1}, result.error());
        }
    });
}

void HostBinding::removing(LeafRef leaf, std::uint64_t mappings, std::uint64_t mapped_bytes) {
    if (is_missing(leaf)) {
        missing_.remove(leaf);
        calls_.tally().were_not_there(mappings, mapped_bytes);
    }
}

void HostBinding::merged(std::uint64_t before, std::uint64_t after) {
    calls_.tally().became(before, after);
    apply();
}

// ---- Unmaps ----

void HostBinding::execute(const Plan& plan, const Delta& delta, Deadline& deadline) {
    for (const UnmapCall& call : plan.calls()) {
        unmap_call(plan, call);
    }
    map_additions(delta, deadline);
    apply();
}

void HostBinding::unmap_call(const Plan& plan, const UnmapCall& call) {
    const HostResult together = calls_.unmap(range_of(call.iova, call.bytes));
    for (const UnmapPart& part : plan.parts(call)) {
        // A range that the host refuses as a whole may go in parts.
        const HostResult result = together.ok() || call.parts == 1
                                      ? together
                                      : calls_.unmap(range_of(part.iova, part.bytes));
        if (result.ok()) {
            unmapped(plan, part);
        } else {
            refused(plan, part, result.error());
        }
    }
}

void HostBinding::unmapped(const Plan& plan, const UnmapPart& part) {
    calls_.tally().went(part.mappings, part.mapped_bytes);
    if (!cut_.empty()) {
        const CutMappings::Count cut = cut_.take_out(range_of(part.iova, part.bytes));
        calls_.tally().were_not_there(cut.counted.count - cut.on_host.count,
                                      cut.counted.bytes - cut.on_host.bytes);
    }
    if (part.rests != 0) {
        calls_.tally().split();
    }
    for (const Rest& rest : plan.rests(part)) {
        const bool was_missing = is_missing(mirror_->leaf_at(rest.mapping.iova));
        if (was_missing) {
            calls_.tally().were_not_there(rest.first_of_mapping ? 1 : 0, rest.mapping.bytes);
        }
        if (const HostResult result = map_around_holes(rest.mapping); !result.ok()) {
            if (!was_missing) {
                add_missing(range_of(rest.mapping), Kind::lost, result);
            }
        } else if (has_missing()) {
            missing_.remove(range_of(rest.mapping));
        }
    }
}

void HostBinding::refused(const Plan& plan, const UnmapPart& part, int error) {
    StuckUnmaps::Mappings mappings = {part.mappings, part.mapped_bytes};
    // The rests stay mapped as part of the stuck stretch. They are mapped again when it has gone.
    for (const Rest& rest : plan.rests(part)) {
        if (is_missing(mirror_->leaf_at(rest.mapping.iova))) {
            mappings.count -= rest.first_of_mapping ? 1 : 0;
            mappings.bytes -= rest.mapping.bytes;
        } else {
            missing_.add(range_of(rest.mapping), Kind::lost);
        }
    }
    add_stuck(range_of(part.iova, part.bytes), mappings, error);
}

void HostBinding::add_stuck(IovaRange range, StuckUnmaps::Mappings mappings, int error) {
    log_->report(Trouble::unmap_refused, range, error);
    const CutMappings::Count cut = cut_.take_out(range);
    mappings.count += cut.on_host.count - cut.counted.count;
    mappings.bytes += cut.on_host.bytes - cut.counted.bytes;
    calls_.stuck().add(range, mappings);
}

bool HostBinding::retry_unmaps(IovaRange range) {
    const bool any = calls_.stuck().retry(range, kMostFailures, [this](IovaRange stuck) {
        calls_.tally().unmap_retry();
        return calls_.unmap(stuck).ok();
    });
    if (any) {
        // The host may have refused leaves because of what was stuck at their addresses.
        missing_.unmark_bad();
    }
    apply();
    return any;
}

// ---- Maps ----

HostResult HostBinding::map(const HostMapping& mapping) {
    const HostResult result = calls_.map(mapping);
    if (!result.ok()) {
        report(mapping, result.error());
    }
    return result;
}

void HostBinding::add_missing(IovaRange range, Kind kind, HostResult refusal) {
    missing_.add(range, kind);
    if (refusal_of(refusal.error()) == Refusal::bad_address) {
        missing_.mark_bad(range);
    }
}

void HostBinding::report(const HostMapping& refused, int error) {
    const IovaRange range = range_of(refused);
    // The rest of a split whose unmap was refused is still mapped as part of the stuck stretch.
    const bool still_there = error == EEXIST && calls_.stuck().overlaps(range) &&
                             missing_.is_lost(mirror_->leaf_at(refused.iova));
    if (!still_there) {
        log_->report(Trouble::map_failed, range, error);
    }
}

void HostBinding::map_additions(const Delta& delta, Deadline& deadline) {
    const std::span<const HostMapping> additions(delta.additions);
    const Kind kind = delta.remaps ? Kind::lost : Kind::plain;
    std::size_t done = 0;
    for (const std::size_t index : delta.in_pieces) {
        map_each(additions.subspan(done, index - done), kind, deadline);
        map_in_pieces(additions[index], kind, deadline);
        done = index + 1;
    }
    map_each(additions.subspan(done), kind, deadline);
}

std::size_t HostBinding::clear_of_holes(std::span<const HostMapping> mappings) const {
    if (mappings.empty() || !holes_.overlaps({mappings.front().iova, mappings.back().end() - 1})) {
        return mappings.size();
    }
    const auto in_hole = [this](const HostMapping& mapping) {
        return holes_.overlaps(range_of(mapping));
    };
    return static_cast<std::size_t>(std::find_if(mappings.begin(), mappings.end(), in_hole) -
                                    mappings.begin());
}

void HostBinding::map_each(std::span<const HostMapping> mappings, Kind kind, Deadline& deadline) {
    while (!mappings.empty()) {
        const std::size_t clear = clear_of_holes(mappings);
        map_whole(mappings.first(clear), kind, deadline);
        mappings = mappings.subspan(clear);
        if (!mappings.empty()) {
            map_in_pieces(mappings.front(), kind, deadline);
            mappings = mappings.subspan(1);
        }
    }
}

void HostBinding::map_whole(std::span<const HostMapping> mappings, Kind kind, Deadline& deadline) {
    std::size_t most = kFirstMaps;
    while (!mappings.empty() && !calls_.gave_up() && !deadline.was_over()) {
        std::uint64_t bytes = 0;
        const std::span<const HostMapping> some = some_of(mappings, most, bytes);
        const MapProgress progress = calls_.map_all(some, bytes);
        mappings = mappings.subspan(progress.mapped);
        if (!progress.result.ok()) {
            const HostMapping& failed = mappings.front();
            report(failed, progress.result.error());
            add_missing(range_of(failed), kind, progress.result);
            mappings = mappings.subspan(1);
        }
        if (!mappings.empty()) {
            (void)deadline.is_over();
            most = std::min(2 * most, kMostMaps);
        }
    }
    for (const HostMapping& mapping : mappings) {
        pass_over(mapping, kind);
    }
}

void HostBinding::map_in_pieces(const HostMapping& run, Kind kind, Deadline& deadline) {
    if (calls_.gave_up() || deadline.was_over()) {
        pass_over(run, kind);
        return;
    }
    const HostResult result = map_pieces(mirror_->leaf_at(run.iova), run.bytes);
    if (!result.ok()) {
        add_missing(range_of(run), kind, result);
    }
    (void)deadline.is_over();
}

void HostBinding::pass_over(const HostMapping& mapping, Kind kind) {
    if (calls_.gave_up()) {
        missing_.add(range_of(mapping), kind);
    } else {
        missing_.put_off(range_of(mapping), kind);
    }
}

bool HostBinding::map_put_off(Deadline& deadline) {
    while (has_put_off() && !calls_.gave_up()) {
        if (!deadline.allows_more()) {
            apply();
            return false;
        }
        const LeafRef leaf = missing_.first_put_off();
        if (!leaf) {
            break;
        }
        const LeafRef first = mirror_->first_of_run(leaf);
        const Iova end = mirror_->end_of_run(leaf);
        if (const HostResult result = try_run(first, end); !result.ok()) {
            missing_.tried({first.iova(), end - 1});
            if (refusal_of(result.error()) == Refusal::bad_address) {
                missing_.mark_bad({first.iova(), end - 1});
            }
        }
    }
    missing_.tried_all();
    apply();
    return true;
}

HostResult HostBinding::map_around_holes(const HostMapping& run) {
    return holes_.overlaps(range_of(run)) ? map_pieces(mirror_->leaf_at(run.iova), run.bytes)
                                          : map(run);
}

HostResult HostBinding::map_pieces(LeafRef first, std::uint64_t bytes) {
    const vtd::DecodedEntry entry = decode(*mirror_, first);
    const Access access = entry.access & first.table->access;
    const IovaRange range = range_of(first.iova(), bytes);
    HostResult result = HostResult::success();
    StuckUnmaps::Mappings mapped;
    visit_host_pieces(*ram_, holes_, range.first, bytes, entry.address, access,
                      [&](const HostMapping& piece) {
                          if (result.ok()) {
                              result = map(piece);
                          }
                          if (result.ok()) {
                              mapped.bytes += piece.bytes;
                              ++mapped.count;
                          }
                      });
    if (result.ok()) {
        if (holes_.overlaps(range)) {
            CutMappings::Count count = {{}, mapped};
            ram_->pieces(entry.address, bytes, access, [&](const RamPiece& piece) {
                count.counted.bytes += piece.bytes;
                ++count.counted.count;
            });
            const std::optional<IovaRange> hole = holes_.host_hole_in(range);
            cut_.add(range, count, hole.has_value());
            if (hole) {
                calls_.tally().iova_hole();
                log_->report(Trouble::iova_hole, *hole, 0);
            }
        }
        return result;
    }
    if (mapped.count == 0) {
        return result;
    }
    if (const HostResult undone = calls_.take_back(range); undone.ok()) {
        calls_.tally().went(mapped.count, mapped.bytes);
    } else {
        add_stuck(range, mapped, undone.error());
    }
    return result;
}

// ---- Retries ----

bool HostBinding::retry_maps(IovaRange range, RetryPass& pass, Deadline& deadline) {
    if (calls_.limit_hit()) {
        first_pass_ = false;
        return true;
    }
    if (range != IovaRange::everything()) {
        return retry(Which::missing, range, pass.leaves, deadline);
    }
    // Bad leaves come first: those that this pass finds to be bad were tried by it.
    if (!pass.bad_leaves_done) {
        if (had_bad_leaves_ && !retry(Which::bad, range, pass.leaves, deadline)) {
            return false;
        }
        pass = {.bad_leaves_done = true};
    }
    if (!calls_.limit_hit() && !retry(Which::promising, range, pass.leaves, deadline)) {
        return false;
    }
    first_pass_ = false;
    return true;
}

bool HostBinding::retry_lost(RetryPass& pass, Deadline& deadline) {
    return calls_.limit_hit() || retry(Which::lost, IovaRange::everything(), pass.leaves, deadline);
}

bool HostBinding::use_room(RetryPass& pass, Deadline& deadline) {
    if (!calls_.room_came_back()) {
        return true;
    }
    const bool in_time = calls_.limit_hit() ||
                         retry(Which::promising, IovaRange::everything(), pass.leaves, deadline);
    if (in_time) {
        calls_.room_is_used(missing_.any_promising());
    }
    return in_time;
}

bool HostBinding::retry(Which which, IovaRange range, MissingLeaves::Pass& pass,
                        Deadline& deadline) {
    bool in_time = true;
    while (const LeafRef leaf = missing_.next_run(which, range, pass)) {
        if (!deadline.allows_more()) {
            MissingLeaves::stop_before(leaf, pass);
            in_time = false;
            break;
        }
        const LeafRef first = mirror_->first_of_run(leaf);
        if (!first_pass_ || missing_.is_lost(first)) {
            calls_.tally().map_retry();
        }
        const Iova end = mirror_->end_of_run(leaf);
        const HostResult result = try_run(first, end);
        if (result.ok()) {
            pass.failures = 0;
        } else if (ends_pass(which, result, {first.iova(), end - 1}, pass)) {
            missing_.give_up(which, range, pass);
            break;
        }
    }
    apply();
    return in_time;
}

bool HostBinding::ends_pass(Which which, HostResult refusal, IovaRange run,
                            MissingLeaves::Pass& pass) {
    switch (refusal_of(refusal.error())) {
        case Refusal::full:
            return true;
        case Refusal::no_memory:
            return ++pass.failures == kMostFailures;
        case Refusal::bad_address:
            // The first refusal of a leaf says nothing of others. Each later one is a call that was
            // to be expected to fail, unless the guest has named the leaf.
            if (!missing_.is_bad(mirror_->leaf_at(run.first))) {
                missing_.mark_bad(run);
                return false;
            }
            return which != Which::missing && ++pass.failures == kMostFailures;
    }
    return true;
}

HostResult HostBinding::try_run(LeafRef first, Iova end) {
    const IovaRange range = {first.iova(), end - 1};
    if (has_stuck()) {
        // The run may reach beyond the range of the retry, where a stuck stretch is in its way.
        retry_unmaps(range);
    }
    const HostMapping mapping = mapping_of(first, end);
    // Only a run of one leaf can lie in several stretches of RAM.
    const HostResult result =
        mapping.bytes != 0 ? map_around_holes(mapping) : map_pieces(first, first.bytes());
    if (result.ok()) {
        missing_.remove(range);
    }
    return result;
}

HostMapping HostBinding::mapping_of(LeafRef first, Iova end) const {
    const vtd::DecodedEntry entry = decode(*mirror_, first);
    const RamPiece piece =
        ram_->whole(entry.address, end - first.iova(), entry.access & first.table->access);
    return {first.iova(), piece.bytes, piece.host, entry.address, piece.access};
}

// ---- Looking at it ----

void HostBinding::visit_mappings(const HostMapper::Visitor& visit) const {
    if (mirror_ == nullptr) {
        return;
    }
    mirror_->leaves(IovaRange::everything(), [&](LeafRef leaf) {
        if (is_missing(leaf)) {
            return;
        }
        const vtd::DecodedEntry entry = decode(*mirror_, leaf);
        visit_host_pieces(*ram_, holes_, leaf.iova(), leaf.bytes(), entry.address,
                          entry.access & leaf.table->access, visit);
    });
}

}  // namespace umbra::shadow
