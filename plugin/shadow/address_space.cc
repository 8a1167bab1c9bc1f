// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/address_space.h"

#include <algorithm>
#include <array>
#include <utility>

#include "plugin/shadow/bitmap.h"
#include "plugin/vtd/interrupt_range.h"

namespace umbra::shadow {
namespace {

using vtd::DecodedEntry;
using vtd::level_index;
using Kind = vtd::DecodedEntry::Kind;

// Up to this many entries are compared one by one.
constexpr unsigned kFewEntries = kEntriesPerLine;

// Stands for a table page that is not in RAM.
alignas(64) constexpr std::array<std::uint64_t, kEntriesPerTable> kNothing{};

// The one read of an entry that the guest may be writing to.
std::uint64_t load(const std::uint64_t* entry) {
    return __atomic_load_n(entry, __ATOMIC_RELAXED);
}

IovaRange clip(const Table& table, IovaRange range) {
    return {std::max(range.first, table.base), std::min(range.last, table.last())};
}

// For what is joined wherever it lies.
constexpr std::uint64_t kNoBorders = std::uint64_t{1} << 63;

bool holds_interrupts(const HostMapping& mapping) {
    return IovaRange{Iova(vtd::kInterruptRangeFirst), Iova(vtd::kInterruptRangeLast)}.overlaps(
        {mapping.iova, mapping.end() - 1});
}

void prefetch_start(const Table& table) {
    // The CPU's own prefetchers follow once a page is entered; they do not cross page boundaries.
    const auto* guest = reinterpret_cast<const char*>(table.guest);
    const auto* copy = reinterpret_cast<const char*>(table.copy);
    for (unsigned line = 0; line < 4; ++line) {
        __builtin_prefetch(guest + std::size_t{64} * line);
        __builtin_prefetch(copy + std::size_t{64} * line);
    }
}

void add(telemetry::SyncCounters& sum, const telemetry::SyncCounters& part) {
    sum.tables_compared += part.tables_compared;
    sum.tables_skipped += part.tables_skipped;
    sum.entries_changed += part.entries_changed;
    sum.leaves_mapped += part.leaves_mapped;
    sum.leaves_unmapped += part.leaves_unmapped;
    sum.pages_mapped += part.pages_mapped;
    sum.pages_unmapped += part.pages_unmapped;
    sum.resizes += part.resizes;
    sum.invalid_entries += part.invalid_entries;
    sum.not_ram += part.not_ram;
    sum.refused_mappings += part.refused_mappings;
    sum.refused_tables += part.refused_tables;
    sum.loops += part.loops;
}

// Moves a value "as of now" of one domain, and the unit's sum over all domains, to `now`.
void move_gauge(std::uint64_t& domain, std::uint64_t& unit, std::uint64_t now) {
    unit += now - domain;
    domain = now;
}

}  // namespace

AddressSpace::AddressSpace(const DomainKey& key, UnitResources& unit)
    : key_(key),
      unit_(unit),
      compare_(compare_functions()),
      mirror_(unit.memory, unit.arena, unit.tables, unit.options.max_tables_domain, unit.format,
              key.root, key.levels),
      log_(unit.events, unit.throttle, key.domain, unit.options.on_map_error) {
    ram_.update(unit.ram, previous_ram_);
}

AddressSpace::~AddressSpace() {
    telemetry::SyncCounters& domain = counters_.sync;
    telemetry::SyncCounters& unit = unit_.counters.sync;
    move_gauge(domain.leaves, unit.leaves, 0);
    move_gauge(domain.tables, unit.tables, 0);
    move_gauge(domain.mirror_bytes, unit.mirror_bytes, 0);
}

void AddressSpace::attach(HostBinding& binding) {
    bindings_.push_back(&binding);
    binding.join(mirror_, ram_, log_, counters_.host);
    look_at_bindings();
}

void AddressSpace::forget(HostBinding& binding) {
    binding.forget();
    look_at_bindings();
}

void AddressSpace::detach(HostBinding& binding) {
    std::erase(bindings_, &binding);
    binding.leave();
    look_at_bindings();
    if (binding.has_stuck() && !any_stuck_) {
        log_.forget(Trouble::unmap_refused);
    }
    heal_calls();
}

void AddressSpace::clear_counters() {
    const telemetry::SyncCounters sync = counters_.sync;
    const telemetry::HostCounters host = counters_.host;
    counters_ = {};
    counters_.sync.leaves = counters_.sync.leaves_peak = sync.leaves;
    counters_.sync.tables = counters_.sync.tables_peak = sync.tables;
    counters_.sync.mirror_bytes = sync.mirror_bytes;
    counters_.host.live_mappings = counters_.host.live_mappings_peak = host.live_mappings;
    counters_.host.pinned_bytes = host.pinned_bytes;
    counters_.host.missing_leaves = host.missing_leaves;
}

// ---- One call of work ----

bool AddressSpace::run(SyncJob& job, std::uint64_t deadline_ns, std::uint64_t& now_ns) {
    const std::uint64_t start = now_ns;
    tally_ = {};
    deadline_ns_ = deadline_ns;
    deadline_ = Deadline(unit_.clock, deadline_ns);
    host_ns_ = 0;
    ticks_ = unit_.options.tables_per_look;
    time_up_ = false;

    if (any_missing_ || any_stuck_) {
        look_at_bindings();
    }
    mirror_.refresh_pointers();
    check_ram();
    if (job.phase == SyncJob::Phase::begin) {
        begin(job);
    }
    // First, so that there is never more of it than one call puts off, and the walk finds nothing
    // missing again.
    const bool in_time = map_put_off();
    if (in_time && job.phase == SyncJob::Phase::walk && walk(job)) {
        job.phase = SyncJob::Phase::retry;
    }
    const bool done = in_time && job.phase == SyncJob::Phase::retry && retry(job);

    now_ns = unit_.clock.now_ns();
    const std::uint64_t total = now_ns - start;
    job.host_ns += host_ns_;
    job.compare_ns += total - std::min(total, host_ns_);
    job.refused_mappings += tally_.refused_mappings;
    job.refused_tables += tally_.refused_tables;
    job.loops += tally_.loops;
    account();
    if (done) {
        finish(job);
    }
    return done;
}

void AddressSpace::begin(SyncJob& job) {
    if (job.trigger == telemetry::SyncTrigger::page) {
        std::swap(ranges_, waiting_);
        waiting_.clear();
        ranges_.normalise();
    } else {
        ranges_.set_everything();
    }
    began_bindings_ = false;
    if (any_missing_ || any_stuck_) {
        retry_unmaps();
    }
    job.cursor = ranges_[0].first;
    job.phase = job.walk ? SyncJob::Phase::walk : SyncJob::Phase::retry;
}

void AddressSpace::begin_bindings() {
    if (!began_bindings_) {
        began_bindings_ = true;
        for (HostBinding* binding : bindings_) {
            binding->begin();
        }
    }
}

void AddressSpace::retry_unmaps() {
    begin_bindings();
    for (HostBinding* binding : bindings_) {
        bool any = false;
        for (std::size_t i = 0; i < ranges_.size() && binding->has_stuck(); ++i) {
            any = binding->retry_unmaps(ranges_[i]) || any;
        }
        if (any && binding->has_lost()) {
            // What went along, but is still wanted, is not to wait until the tables are done. What
            // there is no time for does: it is tried again then.
            HostBinding::RetryPass pass;
            (void)binding->retry_lost(pass, deadline_);
        }
    }
}

bool AddressSpace::map_put_off() {
    const auto has_put_off = [](const HostBinding* binding) { return binding->has_put_off(); };
    if (!any_missing_ || std::none_of(bindings_.begin(), bindings_.end(), has_put_off)) {
        return true;
    }
    const std::uint64_t start = unit_.clock.now_ns();
    const bool in_time =
        std::all_of(bindings_.begin(), bindings_.end(),
                    [this](HostBinding* binding) { return binding->map_put_off(deadline_); });
    host_ns_ += unit_.clock.now_ns() - start;
    look_at_bindings();
    return in_time;
}

bool AddressSpace::walk(SyncJob& job) {
    deadline_.begin();
    Table& root = mirror_.root();
    bool in_time = true;
    while (in_time && job.walk_range < ranges_.size()) {
        const IovaRange left = {job.cursor, std::min(ranges_[job.walk_range].last, root.last())};
        concerned_ = left;
        join_block_ = ranges_.block(job.walk_range);
        if (root.copy != nullptr && left.first <= left.last) {
            in_time = sync_table(root, left);
        }
        if (concerned_ != left) {
            ranges_.widen(job.walk_range, concerned_);
        }
        if (!in_time && cursor_ <= concerned_.last) {
            job.cursor = cursor_;
        } else if (++job.walk_range < ranges_.size()) {
            job.cursor = ranges_[job.walk_range].first;
        }
    }
    flush();
    return job.walk_range == ranges_.size();
}

bool AddressSpace::retry(SyncJob& job) {
    if (!any_missing_) {
        return true;
    }
    if (!map_put_off()) {
        return false;
    }
    const std::uint64_t start = unit_.clock.now_ns();
    bool in_time = true;
    while (in_time && job.binding < bindings_.size()) {
        HostBinding& binding = *bindings_[job.binding];
        in_time = job.retry_range == 0
                      ? binding.retry_lost(job.pass, deadline_)
                      : binding.retry_maps(ranges_[job.retry_range - 1], job.pass, deadline_);
        if (in_time) {
            job.pass = {};
            if (++job.retry_range > ranges_.size()) {
                job.retry_range = 0;
                ++job.binding;
            }
        }
    }
    host_ns_ += unit_.clock.now_ns() - start;
    return in_time;
}

void AddressSpace::account() {
    telemetry::SyncCounters& domain = counters_.sync;
    telemetry::SyncCounters& unit = unit_.counters.sync;
    add(domain, tally_);
    add(unit, tally_);
    move_gauge(domain.leaves, unit.leaves, leaves_);
    move_gauge(domain.tables, unit.tables, mirror_.tables());
    move_gauge(domain.mirror_bytes, unit.mirror_bytes, mirror_.bytes());
    for (telemetry::SyncCounters* counters : {&domain, &unit}) {
        counters->leaves_peak = std::max(counters->leaves_peak, counters->leaves);
        counters->tables_peak = std::max(counters->tables_peak, counters->tables);
    }
}

void AddressSpace::finish(SyncJob& job) {
    const auto trigger = static_cast<std::size_t>(job.trigger);
    ++counters_.sync.syncs[trigger];
    ++unit_.counters.sync.syncs[trigger];
    telemetry::SyncLatency& latency = unit_.counters.latency[trigger];
    latency.compare_ns.record(job.compare_ns);
    latency.host_ns.record(job.host_ns);
    latency.total_ns.record(job.compare_ns + job.host_ns);

    if (log_.quiet()) {
        return;
    }
    look_at_bindings();
    heal_calls();
    if (irregular_leaves_ == 0) {
        log_.heal(Trouble::not_ram);
    }
    if (job.walk && ranges_.everything()) {
        // What is refused is found again by each walk over everything.
        if (job.refused_mappings == 0) {
            log_.heal(Trouble::mapping_budget);
        }
        if (job.refused_tables == 0) {
            log_.heal(Trouble::table_budget);
        }
        if (job.loops == 0) {
            log_.heal(Trouble::table_loop);
        }
    }
    log_.remind();
}

void AddressSpace::heal_calls() {
    if (!any_missing_) {
        log_.heal(Trouble::map_failed);
    }
    if (!any_stuck_) {
        log_.heal(Trouble::unmap_refused);
    }
}

bool AddressSpace::time_is_up(Iova done) {
    // Once up it stays up, and the place where the walk goes on is that of the first time.
    if (time_up_ || --ticks_ != 0) {
        return time_up_;
    }
    ticks_ = unit_.options.tables_per_look;
    time_up_ = unit_.clock.now_ns() >= deadline_ns_;
    if (time_up_) {
        cursor_ = done + 1;
    }
    return time_up_;
}

// ---- The walk ----

bool AddressSpace::sync_table(Table& table, IovaRange range) {
    const std::uint64_t* guest = table.guest != nullptr ? table.guest : kNothing.data();
    if (table.access_changed) [[unlikely]] {
        apply_access(table, guest);
    }
    const unsigned first = level_index(range.first, table.level);
    const unsigned last = level_index(range.last, table.level);
    const bool whole = first == 0 && last == kEntriesPerTable - 1;
    if (whole && table.leaves == 0 && table.children == nullptr && !compare_.any_present(guest)) {
        // Entries that are not present may differ from the copy; nothing follows from it.
        ++tally_.tables_skipped;
        return !time_is_up(range.last);
    }
    ++tally_.tables_compared;
    if (last - first < kFewEntries) {
        return sync_entries(table, guest, first, last, range) && !time_is_up(range.last);
    }
    std::uint64_t lines = compare_.differing_lines(guest, table.copy) &
                          bit_range(first / kEntriesPerLine, last / kEntriesPerLine);
    if (table.children == nullptr) {
        while (lines != 0) {
            // Neighbours together: what changed there mostly goes on across their border.
            const auto line = static_cast<unsigned>(std::countr_zero(lines));
            const auto count = static_cast<unsigned>(std::countr_one(lines >> line));
            lines &= ~bit_range(line, line + count - 1);
            if (!sync_entries(table, guest, std::max(first, line * kEntriesPerLine),
                              std::min(last, (line + count) * kEntriesPerLine - 1), range)) {
                return false;
            }
        }
        return !time_is_up(range.last);
    }
    for (unsigned word = first / 64; word <= last / 64; ++word) {
        const unsigned from = std::max(first, word * 64);
        const unsigned to = std::min(last, word * 64 + 63);
        const bool differs = ((lines >> (word * 8)) & 0xff) != 0;
        const bool in_time = differs
                                 ? sync_entries(table, guest, from, to, range)
                                 : sync_children(table, word, bit_range(from % 64, to % 64), range);
        if (!in_time) {
            return false;
        }
    }
    return !time_is_up(range.last);
}

bool AddressSpace::sync_entries(Table& table, const std::uint64_t* guest, unsigned first,
                                unsigned last, IovaRange range) {
    if (table.level == 1) {
        sync_leaves(table, guest, first, last);
        return true;
    }
    for (unsigned slot = first; slot <= last; ++slot) {
        const std::uint64_t value = load(guest + slot);
        bool in_time = true;
        if (value != table.copy[slot]) {
            in_time = change_entry(table, slot, value, range);
            flush_if_full();
        } else if (Table* child = table.child(slot)) {
            in_time = sync_table(*child, clip(*child, range));
        }
        if (!in_time) {
            return false;
        }
    }
    return true;
}

// What change_entry() does, without all that only concerns tables of higher levels: nearly every
// entry that ever changes is one of these.
void AddressSpace::sync_leaves(Table& table, const std::uint64_t* guest, unsigned first,
                               unsigned last) {
    for (unsigned slot = first; slot <= last; ++slot) {
        const std::uint64_t value = load(guest + slot);
        if (value == table.copy[slot]) {
            continue;
        }
        ++tally_.entries_changed;
        const DecodedEntry entry = mirror_.format().decode(1, value);
        const DecodedEntry old = mirror_.format().decode(1, table.copy[slot]);
        if (old.kind == Kind::leaf && entry.kind == Kind::not_present && irregular_leaves_ == 0 &&
            !any_missing_) {
            // Mostly not alone.
            slot = remove_run(table, guest, slot, last, value);
            flush_if_full();
            continue;
        }
        if (old.kind == Kind::leaf) {
            if (entry.kind == Kind::leaf && entry.address == old.address &&
                same_on_host(old.access & table.access, entry.access & table.access, old.address,
                             kPageSize)) {
                table.copy[slot] = value;
                continue;
            }
            remove_leaf(table, slot, old);
        }
        if (entry.kind == Kind::leaf) {
            if (const unsigned end = add_leaves(table, guest, slot, last, value); end != slot) {
                slot = end - 1;
            } else {
                add_leaf(table, slot, value, entry);
            }
        } else {
            table.copy[slot] = value;
            tally_.invalid_entries += entry.kind == Kind::reserved ? 1 : 0;
        }
        flush_if_full();
    }
}

unsigned AddressSpace::add_leaves(Table& table, const std::uint64_t* guest, unsigned first,
                                  unsigned last, std::uint64_t value) {
    const std::uint64_t budget =
        unit_.options.max_mappings - std::min(unit_.options.max_mappings, leaves_);
    const unsigned end =
        first + static_cast<unsigned>(std::min<std::uint64_t>(budget, last - first + 1));
    Delta& delta = unit_.delta;
    if (!delta.can_add(table.entry_iova(first))) [[unlikely]] {
        flush();
    }
    std::size_t room = delta.room_for_additions();
    HostMapping* before = delta.open_addition();
    const RamRun* run = nullptr;
    unsigned counted = first;
    unsigned slot = first;
    const auto count_leaves = [&] {
        table.leaves += static_cast<std::uint16_t>(slot - counted);
        leaves_ += slot - counted;
        counted = slot;
    };
    while (slot < end) {
        const DecodedEntry entry = mirror_.format().decode(1, value);
        if (entry.kind != Kind::leaf) {
            break;
        }
        if (run == nullptr || !run->holds(entry.address, kPageSize)) {
            run = ram_.run_around(entry.address, kPageSize);
            if (run == nullptr) {
                break;
            }
        }
        const Access access = RamSnapshot::allowed_in(*run, entry.access & table.access);
        if (access == Access::none) {
            break;
        }
        const unsigned begin = slot;
        table.copy[slot] = value;
        ++slot;
        if (unit_.options.coalesce && join_block_ != kPageSize && slot < end &&
            load(guest + slot) == value + kPageSize) {
            slot = copy_stretch(table, guest, slot, end, value, *run);
        }
        const HostMapping mapping = {table.entry_iova(begin), (slot - begin) * kPageSize,
                                     run->host + (entry.address - run->first), entry.address,
                                     access};
        const bool joins = can_join(before, mapping, *run);
        if (joins) {
            before->bytes += mapping.bytes;
        } else {
            before = &delta.additions.push_back(mapping);
            --room;
        }
        mark_joined(table, begin + (joins ? 0 : 1), slot);
        if (room == 0) [[unlikely]] {
            count_leaves();
            flush();
            room = delta.room_for_additions();
            before = nullptr;
        }
        if (slot == end || mirror_.is_leaf(table, slot)) {
            break;
        }
        value = load(guest + slot);
    }
    count_leaves();
    if (slot != first) {
        tally_.entries_changed += slot - first - 1;
        tally_.leaves_mapped += slot - first;
        tally_.pages_mapped += slot - first;
    }
    return slot;
}

unsigned AddressSpace::copy_stretch(Table& table, const std::uint64_t* guest, unsigned first,
                                    unsigned end, std::uint64_t value, const RamRun& run) const {
    const Gpa address = mirror_.format().decode(1, value).address;
    const std::uint64_t pages =
        std::min(run.bytes - (address - run.first), unit_.options.coalesce_limit) >> kPageShift;
    unsigned stop = first + static_cast<unsigned>(std::min<std::uint64_t>(end - first, pages - 1));
    if (const std::uint64_t block = join_block_ >> kPageShift; block < kEntriesPerTable) {
        // Tables begin with a block, so the slots of one have its number in common.
        stop = std::min(stop, static_cast<unsigned>(((first - 1) / block + 1) * block));
    }
    if (vtd::is_interrupt_address(table.entry_iova(first - 1))) {
        // To the end of that range; it begins with a table.
        const std::uint64_t left = Iova(vtd::kInterruptRangeLast) + 1 - table.entry_iova(first);
        stop = std::min(stop, first + static_cast<unsigned>(left >> kPageShift));
    }
    unsigned slot = first;
    for (; slot < stop; ++slot) {
        value += kPageSize;
        if (load(guest + slot) != value ||
            mirror_.format().decode(1, table.copy[slot]).kind != Kind::not_present) {
            break;
        }
        table.copy[slot] = value;
    }
    return slot;
}

unsigned AddressSpace::remove_run(Table& table, const std::uint64_t* guest, unsigned first,
                                  unsigned last, std::uint64_t value) {
    if (!unit_.delta.can_remove(table.entry_iova(first))) [[unlikely]] {
        flush();
    }
    Removal removal = {
        .iova = table.entry_iova(first), .bytes = 0, .joined_before = table.joined.test(first)};
    const bool cut = cut_before(removal.iova);
    unsigned slot = first;
    std::uint64_t leaves = 0;
    for (;; ++slot) {
        table.copy[slot] = value;
        // One that is joined began no mapping, and neither did one that was cut off.
        removal.mappings += table.joined.test(slot) || (slot == first && cut) ? 0 : 1;
        table.joined.clear(slot);
        ++leaves;
        if (slot == last || !mirror_.is_leaf(table, slot + 1)) {
            break;
        }
        value = load(guest + slot + 1);
        if (mirror_.format().decode(1, value).kind != Kind::not_present) {
            break;
        }
    }
    if (const LeafRef next = joined_successor(table, slot)) {
        next.table->joined.clear(next.slot);
        removal.joined_after = true;
    }
    removal.bytes = removal.mapped_bytes = leaves * kPageSize;
    table.leaves -= static_cast<std::uint16_t>(leaves);
    leaves_ -= leaves;
    tally_.entries_changed += leaves - 1;
    tally_.leaves_unmapped += leaves;
    tally_.pages_unmapped += leaves;
    push_removal(removal);
    return slot;
}

bool AddressSpace::sync_children(Table& table, unsigned word, std::uint64_t entries,
                                 IovaRange range) {
    if (table.children == nullptr) {
        return true;
    }
    const Children& children = *table.children;
    entries &= children.present.word(word);
    if (entries == 0) {
        return true;
    }
    std::size_t index =
        children.present.rank(word * 64 + static_cast<unsigned>(std::countr_zero(entries)));
    for (; entries != 0; entries &= entries - 1) {
        Table& child = *children.list[index];
        ++index;
        if (index < children.list.size()) {
            prefetch_start(*children.list[index]);
            if (index + 1 < children.list.size()) {
                __builtin_prefetch(children.list[index + 1]);
            }
        }
        if (!sync_table(child, clip(child, range))) {
            return false;
        }
    }
    return true;
}

bool AddressSpace::change_entry(Table& table, unsigned slot, std::uint64_t value, IovaRange range) {
    ++tally_.entries_changed;
    const DecodedEntry entry = mirror_.format().decode(table.level, value);
    if (Table* child = table.child(slot)) {
        if (entry.kind == Kind::table &&
            (entry.address == child->address ||
             mirror_.refusal(table, entry.address) == Mirror::Refusal::none)) {
            table.copy[slot] = value;
            return change_table(*child, entry, range);
        }
        if (entry.kind == Kind::leaf) {
            if (coarsen_table(*child, value, entry)) {
                return true;
            }
            ++tally_.resizes;
        }
        if (!remove_table(*child)) {
            // The entry still differs, so the next call goes on here.
            cursor_ = std::max(range.first, table.entry_iova(slot));
            return false;
        }
    } else if (mirror_.is_leaf(table, slot)) {
        const DecodedEntry old = mirror_.format().decode(table.level, table.copy[slot]);
        if (entry.kind == Kind::leaf && entry.address == old.address &&
            same_on_host(old.access & table.access, entry.access & table.access, old.address,
                         table.entry_bytes())) {
            table.copy[slot] = value;
            return true;
        }
        if (entry.kind == Kind::table) {
            if (refine_leaf(table, slot, value, entry)) {
                return true;
            }
            ++tally_.resizes;
            // All of the leaf is gone, so all that is there now has to come, whatever was named.
            range = {table.entry_iova(slot), table.entry_iova(slot) + (table.entry_bytes() - 1)};
            concerned_ = RangeList::hull(concerned_, range);
        }
        remove_leaf(table, slot, old);
    }

    // Nothing is there any more.
    switch (entry.kind) {
        case Kind::not_present:
            table.copy[slot] = value;
            return true;
        case Kind::reserved:
            table.copy[slot] = value;
            ++tally_.invalid_entries;
            return true;
        case Kind::leaf:
            add_leaf(table, slot, value, entry);
            return true;
        case Kind::table:
            return add_table(table, slot, value, entry, range);
    }
    return true;
}

bool AddressSpace::change_table(Table& child, const DecodedEntry& entry, IovaRange range) {
    if (child.address != entry.address) {
        child.address = entry.address;
        child.guest = mirror_.guest_page(entry.address);
    }
    const Access access = entry.access & child.parent->access;
    const IovaRange covered = {child.base, child.last()};
    if (access == child.access && !child.access_changed) {
        return sync_table(child, clip(child, range));
    }
    mark_access_changed(child);
    concerned_ = RangeList::hull(concerned_, covered);
    return sync_table(child, covered);
}

void AddressSpace::mark_access_changed(Table& table) {
    table.access_changed = true;
    if (table.children != nullptr) {
        for (Table* child : table.children->list) {
            mark_access_changed(*child);
        }
    }
}

void AddressSpace::apply_access(Table& table, const std::uint64_t* guest) {
    const Access before = table.access;
    const Access after = decoded(*table.parent, table.slot).access & table.parent->access;
    table.access_changed = false;
    for (unsigned slot = 0; slot < kEntriesPerTable && after != before; ++slot) {
        const DecodedEntry old = decoded(table, slot);
        if (old.kind != Kind::leaf) {
            continue;
        }
        const std::uint64_t value = load(guest + slot);
        const DecodedEntry entry = mirror_.format().decode(table.level, value);
        if (entry.kind == Kind::leaf && entry.address == old.address &&
            same_on_host(old.access & before, entry.access & after, old.address,
                         table.entry_bytes())) {
            table.copy[slot] = value;
            continue;
        }
        tally_.resizes += entry.kind == Kind::table ? 1 : 0;
        remove_leaf(table, slot, old);
        flush_if_full();
    }
    table.access = after;
}

bool AddressSpace::add_table(Table& table, unsigned slot, std::uint64_t value,
                             const DecodedEntry& entry, IovaRange range) {
    const IovaRange covered = {table.entry_iova(slot),
                               table.entry_iova(slot) + (table.entry_bytes() - 1)};
    switch (mirror_.refusal(table, entry.address)) {
        case Mirror::Refusal::not_ram:
            ++tally_.invalid_entries;
            return true;
        case Mirror::Refusal::loop:
            ++tally_.loops;
            log_.report(Trouble::table_loop, covered, 0);
            return true;
        case Mirror::Refusal::none:
            break;
    }
    if (leaves_ >= unit_.options.max_mappings) {
        // Nothing in it could be taken over, so it is not even looked at.
        refuse_leaf(covered);
        return true;
    }
    Table* child = mirror_.add_child(table, slot, entry.address, entry.access & table.access);
    if (child == nullptr) {
        ++tally_.refused_tables;
        log_.report(Trouble::table_budget, covered, 0);
        return true;
    }
    table.copy[slot] = value;
    return sync_table(*child, clip(*child, range));
}

inline void AddressSpace::add_leaf(Table& table, unsigned slot, std::uint64_t value,
                                   const DecodedEntry& entry) {
    if (leaves_ >= unit_.options.max_mappings) {
        refuse_leaf({table.entry_iova(slot), table.entry_iova(slot) + (table.entry_bytes() - 1)});
        return;
    }
    table.copy[slot] = value;
    ++table.leaves;
    ++leaves_;
    ++tally_.leaves_mapped;
    tally_.pages_mapped += table.entry_bytes() >> kPageShift;
    emit_addition(table, slot, entry, table.entry_bytes());
}

void AddressSpace::refuse_leaf(IovaRange range) {
    ++tally_.refused_mappings;
    log_.report(Trouble::mapping_budget, range, 0);
}

inline void AddressSpace::remove_leaf(Table& table, unsigned slot, const DecodedEntry& entry) {
    emit_removal(table, slot, entry);
    table.copy[slot] = 0;
    --table.leaves;
    --leaves_;
    ++tally_.leaves_unmapped;
    tally_.pages_unmapped += table.entry_bytes() >> kPageShift;
}

bool AddressSpace::remove_table(Table& table) {
    if (table.children == nullptr && irregular_leaves_ == 0 && !any_missing_) {
        remove_leaves_at_once(table);
    } else {
        for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
            if (Table* child = table.child(slot)) {
                if (!remove_table(*child)) {
                    return false;
                }
            } else if (mirror_.is_leaf(table, slot)) {
                remove_leaf(table, slot, decoded(table, slot));
                flush_if_full();
            }
        }
    }
    const Iova last = table.last();
    table.parent->copy[table.slot] = 0;
    mirror_.remove(table);
    flush_if_full();
    return !time_is_up(last);
}

void AddressSpace::remove_leaves_at_once(Table& table) {
    if (table.leaves == 0) {
        return;
    }
    if (!unit_.delta.can_remove(table.base)) {
        flush();
    }
    unsigned first = 0;
    while (!mirror_.is_leaf(table, first)) {
        ++first;
    }
    unsigned last = kEntriesPerTable - 1;
    while (!mirror_.is_leaf(table, last)) {
        --last;
    }
    Removal removal = {.iova = table.entry_iova(first),
                       .bytes = (last - first + 1) * table.entry_bytes(),
                       .mapped_bytes = table.leaves * table.entry_bytes(),
                       .joined_before = table.joined.test(first)};
    removal.mappings = table.leaves - table.joined.count() - (cut_before(removal.iova) ? 1 : 0);
    if (const LeafRef next = joined_successor(table, last)) {
        next.table->joined.clear(next.slot);
        removal.joined_after = true;
    }
    leaves_ -= table.leaves;
    tally_.leaves_unmapped += table.leaves;
    tally_.pages_unmapped += removal.mapped_bytes >> kPageShift;
    table.leaves = 0;
    push_removal(removal);
}

// ---- The same translation in leaves of another size ----

bool AddressSpace::refine_leaf(Table& table, unsigned slot, std::uint64_t value,
                               const DecodedEntry& entry) {
    const DecodedEntry old = mirror_.format().decode(table.level, table.copy[slot]);
    const Access access = old.access & table.access;
    const LeafRef leaf = {&table, slot};
    const bool is_missing =
        std::any_of(bindings_.begin(), bindings_.end(),
                    [&](const HostBinding* binding) { return binding->is_missing(leaf); });
    if (is_missing || ram_.whole(old.address, table.entry_bytes(), access).bytes == 0 ||
        mirror_.refusal(table, entry.address) != Mirror::Refusal::none) {
        return false;
    }
    Table* child = mirror_.add_child(table, slot, entry.address, entry.access & table.access);
    if (child == nullptr) {
        return false;
    }
    std::uint64_t leaves = 0;
    if (!adopt(*child, old.address, access, leaves) ||
        leaves_ + leaves - 1 > unit_.options.max_mappings) {
        drop(*child);
        return false;
    }
    // On the host it stays one mapping, which the first of the new leaves continues or begins.
    const bool joined = leaf.joined();
    table.joined.clear(slot);
    table.copy[slot] = value;
    --table.leaves;
    leaves_ += leaves - 1;
    joins_ = true;
    if (!joined) {
        const LeafRef first = mirror_.leaf_at(child->base);
        first.table->joined.clear(first.slot);
    }
    return true;
}

bool AddressSpace::adopt(Table& table, Gpa guest, Access access, std::uint64_t& leaves) {
    if (table.guest == nullptr) {
        return false;
    }
    for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
        const std::uint64_t value = load(table.guest + slot);
        const DecodedEntry entry = mirror_.format().decode(table.level, value);
        const Gpa expected = guest + slot * table.entry_bytes();
        if (entry.kind == Kind::leaf) {
            if (entry.address != expected || (entry.access & table.access) != access) {
                return false;
            }
            table.copy[slot] = value;
            table.joined.set(slot);
            ++table.leaves;
            ++leaves;
        } else if (entry.kind == Kind::table) {
            if (mirror_.refusal(table, entry.address) != Mirror::Refusal::none) {
                return false;
            }
            Table* child =
                mirror_.add_child(table, slot, entry.address, entry.access & table.access);
            if (child == nullptr) {
                return false;
            }
            table.copy[slot] = value;
            if (!adopt(*child, expected, access, leaves)) {
                return false;
            }
        } else {
            return false;
        }
    }
    return true;
}

bool AddressSpace::coarsen_table(Table& child, std::uint64_t value, const DecodedEntry& entry) {
    Table& table = *child.parent;
    const unsigned slot = child.slot;
    const Access access = entry.access & table.access;
    if (!translates_to(child, entry.address, access) ||
        ram_.whole(entry.address, table.entry_bytes(), access).bytes == 0) {
        return false;
    }
    std::uint64_t leaves = 0;
    std::uint64_t mappings = 0;
    bool is_missing = false;
    mirror_.leaves({child.base, child.last()}, [&](LeafRef leaf) {
        ++leaves;
        mappings += leaf.joined() ? 0 : 1;
        for (const HostBinding* binding : bindings_) {
            is_missing = is_missing || binding->is_missing(leaf);
        }
    });
    if (is_missing) {
        return false;
    }
    const bool joined = mirror_.leaf_at(child.base).joined();
    drop(child);
    table.copy[slot] = value;
    ++table.leaves;
    leaves_ -= leaves - 1;
    if (joined) {
        table.joined.set(slot);
    }
    for (HostBinding* binding : bindings_) {
        binding->merged(mappings, joined ? 0 : 1);
    }
    return true;
}

bool AddressSpace::translates_to(const Table& table, Gpa guest, Access access) const {
    for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
        const DecodedEntry entry = mirror_.format().decode(table.level, table.copy[slot]);
        const Gpa expected = guest + slot * table.entry_bytes();
        if (const Table* child = table.child(slot)) {
            if (!translates_to(*child, expected, access)) {
                return false;
            }
        } else if (entry.kind != Kind::leaf || entry.address != expected ||
                   (entry.access & table.access) != access) {
            return false;
        }
    }
    return true;
}

void AddressSpace::drop(Table& table) {
    while (table.children != nullptr) {
        drop(*table.children->list.back());
    }
    mirror_.remove(table);
}

// ---- Deltas ----

inline void AddressSpace::emit_addition(Table& table, unsigned slot, const DecodedEntry& entry,
                                        std::uint64_t bytes) {
    const Access access = entry.access & table.access;
    const Iova iova = table.entry_iova(slot);
    const RamRun* run = ram_.run_around(entry.address, bytes);
    const Access allowed = run != nullptr ? RamSnapshot::allowed_in(*run, access) : Access::none;
    if (allowed != Access::none) {
        const HostMapping mapping = {iova, bytes, run->host + (entry.address - run->first),
                                     entry.address, allowed};
        if (HostMapping* before = unit_.delta.open_addition(); can_join(before, mapping, *run)) {
            before->bytes += bytes;
            mark_joined(table, slot, slot + 1);
        } else {
            push_addition(mapping);
        }
        return;
    }
    ++irregular_leaves_;
    if (access == Access::none) {
        return;
    }
    std::uint64_t mapped = 0;
    ram_.pieces(entry.address, bytes, access,
                [&](const RamPiece& piece) { mapped += piece.bytes; });
    if (mapped < bytes) {
        ++tally_.not_ram;
        log_.report(Trouble::not_ram, {iova, iova + (bytes - 1)}, 0);
    }
    if (mapped != 0) {
        push_addition({iova, bytes, HostAddress(), entry.address, access});
        unit_.delta.in_pieces.push_back(unit_.delta.additions.size() - 1);
    }
}

inline bool AddressSpace::can_join(const HostMapping* before, const HostMapping& mapping,
                                   const RamRun& run) const {
    // All of it in one run of RAM: two runs can touch each other and yet go separate ways. And a
    // host has no room for mappings where interrupts go: what lies there must fail by itself, at
    // once rather than page by page. No DMA gets there that could miss a mapping.
    return before != nullptr && before->guest + before->bytes == mapping.guest &&
           before->end() == mapping.iova && before->guest >= run.first &&
           before->access == mapping.access && unit_.options.coalesce &&
           before->bytes + mapping.bytes <= unit_.options.coalesce_limit &&
           holds_interrupts(*before) == holds_interrupts(mapping) &&
           (!mapping.iova.is_aligned(join_block_) || holds_interrupts(mapping));
}

inline void AddressSpace::mark_joined(Table& table, unsigned first, unsigned end) {
    if (first < end) {
        table.joined.set(first, end - 1);
        joins_ = true;
    }
}

inline void AddressSpace::push_addition(const HostMapping& mapping) {
    if (!unit_.delta.can_add(mapping.iova)) [[unlikely]] {
        flush();
    }
    unit_.delta.additions.push_back(mapping);
}

inline bool AddressSpace::cut_before(Iova iova) const {
    const std::vector<Removal>& removals = unit_.delta.removals;
    return !removals.empty() && removals.back().end() == iova && removals.back().joined_after;
}

inline LeafRef AddressSpace::joined_successor(Table& table, unsigned slot) const {
    if (!joins_) {
        return {};
    }
    LeafRef next = {&table, slot + 1};
    if (slot + 1 == kEntriesPerTable || table.child(slot + 1) != nullptr) {
        next = mirror_.leaf_at(table.entry_iova(slot) + table.entry_bytes());
    }
    return next && next.joined() ? next : LeafRef{};
}

inline void AddressSpace::emit_removal(Table& table, unsigned slot, const DecodedEntry& entry) {
    if (!unit_.delta.can_remove(table.entry_iova(slot))) [[unlikely]] {
        flush();
    }
    const Access access = entry.access & table.access;
    Removal removal = {.iova = table.entry_iova(slot),
                       .bytes = table.entry_bytes(),
                       .joined_before = table.joined.test(slot)};
    if (irregular_leaves_ == 0 || ram_.whole(entry.address, removal.bytes, access).bytes != 0) {
        removal.mapped_bytes = removal.bytes;
        removal.mappings = removal.joined_before || cut_before(removal.iova) ? 0 : 1;
        table.joined.clear(slot);
        if (const LeafRef next = joined_successor(table, slot)) {
            next.table->joined.clear(next.slot);
            removal.joined_after = true;
        }
    } else {
        --irregular_leaves_;
        ram_.pieces(entry.address, removal.bytes, access, [&](const RamPiece& piece) {
            removal.mapped_bytes += piece.bytes;
            ++removal.mappings;
        });
    }
    if (any_missing_) [[unlikely]] {
        for (HostBinding* binding : bindings_) {
            binding->removing({&table, slot}, removal.mappings, removal.mapped_bytes);
        }
    }
    if (removal.mapped_bytes != 0) {
        push_removal(removal);
    }
}

inline void AddressSpace::push_removal(const Removal& removal) {
    std::vector<Removal>& removals = unit_.delta.removals;
    if (!removals.empty() && removals.back().end() == removal.iova) {
        Removal& before = removals.back();
        before.bytes += removal.bytes;
        before.mapped_bytes += removal.mapped_bytes;
        before.mappings += removal.mappings;
        before.joined_after = removal.joined_after;
        return;
    }
    removals.push_back(removal);
}

bool AddressSpace::same_on_host(Access before, Access after, Gpa guest, std::uint64_t bytes) const {
    return before == after || RamSnapshot::same(ram_, before, ram_, after, guest, bytes);
}

void AddressSpace::look_at_bindings() {
    any_missing_ = false;
    any_stuck_ = false;
    for (const HostBinding* binding : bindings_) {
        any_missing_ = any_missing_ || binding->has_missing();
        any_stuck_ = any_stuck_ || binding->has_stuck();
    }
}

DecodedEntry AddressSpace::decoded(const Table& table, unsigned slot) const {
    return mirror_.format().decode(table.level, table.copy[slot]);
}

inline void AddressSpace::flush_if_full() {
    if (unit_.delta.full()) [[unlikely]] {
        flush();
    }
}

void AddressSpace::flush() {
    Delta& delta = unit_.delta;
    if (delta.empty()) {
        return;
    }
    begin_bindings();
    unit_.plan.build(delta.removals, mirror_, ram_);
    const std::uint64_t start = unit_.clock.now_ns();
    for (HostBinding* binding : bindings_) {
        if (binding != bindings_.front()) {
            (void)deadline_.is_over();
        }
        binding->execute(unit_.plan, delta, deadline_);
    }
    host_ns_ += unit_.clock.now_ns() - start;
    look_at_bindings();
    delta.clear();
    ticks_ = 1;
}

// ---- Guest RAM ----

void AddressSpace::check_ram() {
    if (!ram_.update(unit_.ram, previous_ram_)) {
        return;
    }
    unit_.delta.remaps = true;
    HostRun run;
    mirror_.leaves(IovaRange::everything(), [&](LeafRef leaf) {
        if (!leaf.joined()) {
            follow_ram(run);
            run = {.first = leaf};
        }
        run.end = leaf.iova() + leaf.bytes();
        const DecodedEntry entry = decoded(*leaf.table, leaf.slot);
        const Access access = entry.access & leaf.table->access;
        const bool same =
            RamSnapshot::same(ram_, access, previous_ram_, access, entry.address, leaf.bytes());
        (same ? run.some_stay : run.some_move) = true;
    });
    follow_ram(run);
    flush();
    unit_.delta.remaps = false;
}

void AddressSpace::follow_ram(const HostRun& run) {
    if (!run.first) {
        return;
    }
    const DecodedEntry entry = decoded(*run.first.table, run.first.slot);
    const Access access = entry.access & run.first.table->access;
    const std::uint64_t bytes = run.end - run.first.iova();
    const bool joined = bytes != run.first.bytes();
    // Joined leaves lie in one run of RAM. If a border has come between them, they have to come
    // apart on the host too, even if all of them are where they were.
    if (!run.some_move && (!joined || ram_.run_around(entry.address, bytes) != nullptr)) {
        return;
    }
    if (run.some_stay || previous_ram_.in_pieces(entry.address, bytes, access) ||
        ram_.in_pieces(entry.address, bytes, access)) {
        ++tally_.resizes;
    }
    const IovaRange range = {run.first.iova(), run.end - 1};
    // What goes was mapped as RAM was. Nothing is carried out meanwhile: it goes as a whole, and
    // comes after everything that is in the delta.
    std::swap(ram_, previous_ram_);
    mirror_.leaves(range, [this](LeafRef leaf) {
        emit_removal(*leaf.table, leaf.slot, decoded(*leaf.table, leaf.slot));
    });
    std::swap(ram_, previous_ram_);
    // Together again with what it was one mapping with before, and with nothing else.
    join_block_ = kPageSize;
    mirror_.leaves(range, [this](LeafRef leaf) {
        emit_addition(*leaf.table, leaf.slot, decoded(*leaf.table, leaf.slot), leaf.bytes());
        join_block_ = kNoBorders;
        flush_if_full();
    });
    flush_if_full();
}

}  // namespace umbra::shadow
