// SPDX-License-Identifier: GPL-2.0-or-later
//
// The syncs that are put off, and when they are done.
//
//   job     one sync of one domain
//   batch   the invalidations that the guest handed over together; its jobs are done at a barrier
//   slice   the longest stretch of work at a time (Options::slice_ns). All barriers of a batch have
//           one slice together. A job that does not fit in waits for run().
//
// Outside of batches settle() does the jobs at once.
//
// Threading: one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "plugin/shadow/clock.h"
#include "plugin/shadow/domain.h"
#include "plugin/shadow/options.h"
#include "plugin/telemetry/histogram.h"

namespace umbra::shadow {

class JobQueue {
  public:
    // All outlive the queue. `hold` gets the time that each batch, and each piece of work
    // outside of batches, took.
    JobQueue(const Options& options, const Clock& clock, telemetry::Histogram& hold);

    // ---- Jobs ----

    // Puts a sync of `domain` off, and returns true. Returns false if a waiting one covers it.
    bool add(Domain& domain, const SyncJob& sync);
    // Puts off a sync of these pages of `domain`.
    void add_pages(Domain& domain, IovaRange pages) {
        if (domain.pages_waiting() || add(domain, {.trigger = telemetry::SyncTrigger::page})) {
            domain.add_pages(pages);
        }
    }
    // The bindings of `domain` are others than when its jobs began.
    void restart_retries(const Domain& domain);
    // `domain` goes, and its jobs with it.
    void drop(const Domain& domain);

    // ---- Doing them ----

    // Does all jobs, unless a batch is under way: then its barrier does.
    void settle() {
        if (batches_ == 0) {
            finish();
        }
    }
    // Does jobs for one slice, and returns whether none is left.
    [[nodiscard]] bool run();
    // Does jobs for about that long, and at least a piece of the first one.
    void spend(std::uint64_t ns);
    // Work of the caller took that long, and counts for the hold.
    void add_hold(std::uint64_t ns) { held_ns_ = held_ns_.value_or(0) + ns; }

    // ---- Batches ----

    // Batches can contain each other. The outermost one counts.
    void batch_begin();
    void batch_end();
    // Does jobs for what is left of the batch's slice. After the slice is over, a barrier that
    // insists gets another one.
    void barrier();
    // Whether no job is left, and the batch has not used its slice up.
    [[nodiscard]] bool caught_up() const {
        return jobs_.empty() && (options_.slice_ns == 0 || slice_used_ns_ < options_.slice_ns);
    }
    // Whether the batch began less than a slice ago.
    [[nodiscard]] bool has_time() const {
        return options_.slice_ns == 0 || clock_.now_ns() - batch_start_ns_ < options_.slice_ns;
    }

  private:
    struct Job {
        Domain* domain = nullptr;
        SyncJob sync;

        // Whether it is one of `other` and has not begun.
        [[nodiscard]] bool waits_for(const Domain& other) const {
            return domain == &other && sync.phase == SyncJob::Phase::begin;
        }
    };

    void finish();
    // Does jobs for about `budget_ns`, and returns how long that took.
    std::uint64_t work(std::uint64_t budget_ns);
    void record_hold();

    const Options& options_;
    const Clock& clock_;
    telemetry::Histogram& hold_;

    std::vector<Job> jobs_;
    unsigned batches_ = 0;  // that are under way, one in another
    std::uint64_t batch_start_ns_ = 0;
    std::uint64_t slice_used_ns_ = 0;       // of the slice under way
    std::optional<std::uint64_t> held_ns_;  // not recorded yet; nullopt if there was no work
};

}  // namespace umbra::shadow
