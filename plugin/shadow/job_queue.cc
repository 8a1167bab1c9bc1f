// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/job_queue.h"

#include <algorithm>
#include <limits>

namespace umbra::shadow {
namespace {

using telemetry::SyncTrigger;

// Each domain has one waiting job of a kind at most, so more are rare.
constexpr std::size_t kUsualJobs = 256;
constexpr std::uint64_t kNoLimit = std::numeric_limits<std::uint64_t>::max();

// Whether the sync walks all tables of the domain.
bool looks_at_all(const SyncJob& sync) {
    return sync.walk && sync.trigger != SyncTrigger::page;
}

}  // namespace

JobQueue::JobQueue(const Options& options, const Clock& clock, telemetry::Histogram& hold)
    : options_(options), clock_(clock), hold_(hold) {
    jobs_.reserve(kUsualJobs);
}

// ---- Jobs ----

bool JobQueue::add(Domain& domain, const SyncJob& sync) {
    const bool covered = std::any_of(jobs_.begin(), jobs_.end(), [&](const Job& job) {
        return job.waits_for(domain) &&
               (looks_at_all(job.sync) || job.sync.trigger == sync.trigger);
    });
    if (covered) {
        return false;
    }
    if (looks_at_all(sync) && domain.pages_waiting()) {
        std::erase_if(jobs_, [&](const Job& job) {
            return job.waits_for(domain) && job.sync.trigger == SyncTrigger::page;
        });
        domain.drop_pages();
    }
    jobs_.push_back({&domain, sync});
    jobs_.back().sync.since_ns = batches_ == 0 ? 0 : batch_start_ns_;
    return true;
}

void JobQueue::restart_retries(const Domain& domain) {
    for (Job& job : jobs_) {
        if (job.domain == &domain) {
            job.sync.restart_retries();
        }
    }
}

void JobQueue::drop(const Domain& domain) {
    std::erase_if(jobs_, [&](const Job& job) { return job.domain == &domain; });
}

// ---- Doing them ----

void JobQueue::finish() {
    (void)work(kNoLimit);
    if (batches_ == 0) {
        record_hold();
    }
}

void JobQueue::spend(std::uint64_t ns) {
    (void)work(ns);
    if (batches_ == 0) {
        record_hold();
    }
}

bool JobQueue::run() {
    slice_used_ns_ = 0;
    (void)work(options_.slice_ns == 0 ? kNoLimit : options_.slice_ns);
    record_hold();
    return jobs_.empty();
}

std::uint64_t JobQueue::work(std::uint64_t budget_ns) {
    if (jobs_.empty()) {
        return 0;
    }
    const std::uint64_t start = clock_.now_ns();
    const std::uint64_t deadline = budget_ns == kNoLimit ? kNoLimit : start + budget_ns;
    std::uint64_t now = start;
    std::size_t done = 0;
    while (done < jobs_.size() && jobs_[done].domain->run(jobs_[done].sync, deadline, now)) {
        ++done;
        if (now >= deadline) {
            break;
        }
    }
    jobs_.erase(jobs_.begin(), jobs_.begin() + static_cast<std::ptrdiff_t>(done));
    add_hold(now - start);
    return now - start;
}

void JobQueue::record_hold() {
    if (held_ns_) {
        hold_.record(*held_ns_);
        held_ns_.reset();
    }
}

// ---- Batches ----

void JobQueue::batch_begin() {
    if (batches_++ == 0) {
        held_ns_.reset();
        slice_used_ns_ = 0;
        batch_start_ns_ = options_.slice_ns == 0 ? 0 : clock_.now_ns();
    }
}

void JobQueue::batch_end() {
    if (batches_ > 0 && --batches_ == 0) {
        record_hold();
    }
}

void JobQueue::barrier() {
    if (options_.slice_ns == 0) {
        finish();
        return;
    }
    if (slice_used_ns_ >= options_.slice_ns) {
        slice_used_ns_ = 0;
    }
    slice_used_ns_ += work(options_.slice_ns - slice_used_ns_);
}

}  // namespace umbra::shadow
