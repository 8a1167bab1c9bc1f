// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/domain.h"

#include <algorithm>
#include <utility>

#include "plugin/shadow/table_sync.h"

namespace umbra::shadow {

Domain::Domain(const DomainKey& key, UnitResources& unit)
    : key_(key),
      unit_(unit),
      leaves_{Mirror(unit.memory, unit.arena, unit.tables, unit.options.max_tables_domain,
                     unit.format, key.root, key.levels)},
      log_(unit.events, unit.throttle, unit.map_errors, key.domain) {
    RamSnapshot none;
    leaves_.ram.update(unit.ram, none);
}

Domain::~Domain() {
    telemetry::SyncCounters last = counters_.sync;
    last.leaves = 0 - last.leaves;
    last.tables = 0 - last.tables;
    last.mirror_bytes = 0 - last.mirror_bytes;
    unit_.syncs += last;
}

// ---- Devices ----

void Domain::attach(HostBinding& binding) {
    bindings_.add(binding);
    binding.join(leaves_.mirror, leaves_.ram, log_, counters_.host);
    bindings_.look();
    ram_follower_.set_write_implies_read(bindings_.write_implies_read());
}

void Domain::forget(HostBinding& binding) {
    binding.forget();
    bindings_.look();
}

void Domain::detach(HostBinding& binding) {
    bindings_.remove(binding);
    binding.leave();
    bindings_.look();
    ram_follower_.set_write_implies_read(bindings_.write_implies_read());
    if (binding.has_stuck() && !bindings_.any_stuck()) {
        log_.forget(Trouble::unmap_refused);
    }
    heal_calls();
}

// ---- A job ----

bool Domain::run(SyncJob& job, std::uint64_t deadline_ns, std::uint64_t& now_ns) {
    const std::uint64_t start = now_ns;
    SyncRun run(unit_, leaves_, log_, counters_.sync, deadline_ns);
    DeltaBuilder delta(run, bindings_);
    if (bindings_.any_missing() || bindings_.any_stuck()) {
        bindings_.look();
    }
    leaves_.mirror.refresh_pointers();
    ram_follower_.follow(run, delta);
    if (job.phase == SyncJob::Phase::begin) {
        job.since_ns = job.since_ns == 0 ? start : job.since_ns;
        begin(job, run);
    }
    const bool done = advance(job, run, delta);

    now_ns = unit_.clock.now_ns();
    const std::uint64_t total = now_ns - start;
    job.host_ns += run.slice.host_ns();
    job.compare_ns += total - std::min(total, run.slice.host_ns());
    job.refused.add(run.refused);
    account();
    if (bindings_.any_missing() || bindings_.any_stuck()) {
        unit_.wants_retry = true;
    }
    if (done) {
        finish(job, now_ns);
    }
    return done;
}

void Domain::follow_ram(std::uint64_t deadline_ns) {
    SyncRun run(unit_, leaves_, log_, counters_.sync, deadline_ns);
    DeltaBuilder delta(run, bindings_);
    bindings_.look();
    leaves_.mirror.refresh_pointers();
    bindings_.begin_job();
    ram_follower_.follow(run, delta);
    account();
}

void Domain::begin(SyncJob& job, SyncRun& run) {
    if (job.trigger == telemetry::SyncTrigger::page) {
        std::swap(ranges_, waiting_);
        waiting_.clear();
        ranges_.normalise();
    } else {
        ranges_.set_everything();
    }
    bindings_.begin_job();
    if (bindings_.any_missing() || bindings_.any_stuck()) {
        bindings_.retry_unmaps(ranges_, run.slice);
    }
    job.cursor = ranges_[0].first;
    job.phase = job.walk ? SyncJob::Phase::walk : SyncJob::Phase::retry;
}

bool Domain::advance(SyncJob& job, SyncRun& run, DeltaBuilder& delta) {
    // Leaves that were put off come first. So never more are waiting than one call puts off, and
    // the walk can take its fast paths again.
    if (!bindings_.map_put_off(run.slice)) {
        return false;
    }
    if (job.phase == SyncJob::Phase::walk) {
        if (!walk(job, run, delta)) {
            return false;
        }
        job.phase = SyncJob::Phase::retry;
    }
    return bindings_.retry_maps(ranges_, job.retries, run.slice);
}

bool Domain::walk(SyncJob& job, SyncRun& run, DeltaBuilder& delta) {
    run.slice.deadline().begin();
    TableSync tables(run, delta);
    while (job.walk_range < ranges_.size() && !tables.slice_is_over()) {
        delta.set_join_block(ranges_.block(job.walk_range));
        const TableSync::Result result = tables.sync({job.cursor, ranges_[job.walk_range].last});
        ranges_.widen(job.walk_range, result.widened);
        if (!result.done) {
            job.cursor = result.resume_at;
        } else if (++job.walk_range < ranges_.size()) {
            job.cursor = ranges_[job.walk_range].first;
        }
    }
    delta.flush();
    return job.walk_range == ranges_.size();
}

void Domain::finish(SyncJob& job, std::uint64_t now_ns) {
    ++counters_.sync.syncs[job.trigger];
    telemetry::SyncLatency& latency = unit_.counters.latency[job.trigger];
    latency.compare.record(job.compare_ns);
    latency.host.record(job.host_ns);
    latency.total.record(job.compare_ns + job.host_ns);
    latency.wait.record(now_ns - std::min(now_ns, job.since_ns));

    if (log_.quiet()) {
        return;
    }
    bindings_.look();
    heal_calls();
    if (leaves_.irregular == 0) {
        log_.heal(Trouble::not_ram);
    }
    if (!bindings_.any_host_hole()) {
        log_.heal(Trouble::iova_hole);
    }
    if (job.walk && ranges_.everything()) {
        heal_refusals(job);
    }
    log_.remind();
}

void Domain::heal_calls() {
    if (!bindings_.any_missing()) {
        log_.heal(Trouble::map_failed);
    }
    if (!bindings_.any_stuck()) {
        log_.heal(Trouble::unmap_refused);
    }
}

void Domain::heal_refusals(const SyncJob& job) {
    if (!job.refused.mappings) {
        log_.heal(Trouble::mapping_budget);
    }
    if (!job.refused.tables) {
        log_.heal(Trouble::table_budget);
    }
    if (!job.refused.loops) {
        log_.heal(Trouble::table_loop);
    }
}

// ---- Counters ----

void Domain::account() {
    const auto set = [](std::uint64_t& own, std::uint64_t& unit, std::uint64_t now) {
        unit += now - own;
        own = now;
    };
    telemetry::SyncCounters& own = counters_.sync;
    telemetry::SyncCounters& unit = unit_.syncs;
    set(own.leaves, unit.leaves, leaves_.count);
    set(own.tables, unit.tables, leaves_.mirror.tables());
    set(own.mirror_bytes, unit.mirror_bytes, leaves_.mirror.bytes());
    own.follow_peaks();
    unit.follow_peaks();
}

void Domain::clear_counters() {
    counters_.clear();
}

void Domain::add_counts_to(telemetry::SyncCounters& sum) const {
    telemetry::SyncCounters counts = counters_.sync;
    counts.leaves = 0;
    counts.tables = 0;
    counts.mirror_bytes = 0;
    sum += counts;
}

}  // namespace umbra::shadow
