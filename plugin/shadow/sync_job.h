// SPDX-License-Identifier: GPL-2.0-or-later
//
// One sync of one domain: its reason, and its progress. A job can take many calls of Domain::run()
// with pauses in between, in which devices can come to the domain and leave it.
//
// Threading: one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "counter_types.h"
#include "plugin/shadow/bindings.h"
#include "plugin/vtd/types.h"

namespace umbra::shadow {

// What a walk did not take over from the guest's tables, by the reason for it.
struct Refusals {
    bool mappings = false;  // leaves above max-mappings
    bool tables = false;    // tables above max-tables
    bool loops = false;     // tables that are their own ancestor

    void add(const Refusals& other) {
        mappings = mappings || other.mappings;
        tables = tables || other.tables;
        loops = loops || other.loops;
    }
};

struct SyncJob {
    telemetry::SyncTrigger trigger = telemetry::SyncTrigger::domain;
    // False if guest tables need not be looked at: a device came to a domain that is in step.
    bool walk = true;

    // The bindings of the domain have changed, so the missing leaves are tried from the start.
    void restart_retries() { retries = {}; }

    // ---- Progress, changed by Domain::run() only ----

    enum class Phase : std::uint8_t { begin, walk, retry } phase = Phase::begin;
    std::size_t walk_range = 0;  // index of the range that is walked
    Iova cursor{};               // where the walk goes on in that range
    Bindings::RetryProgress retries{};

    // Sums over the calls so far.
    Refusals refused{};
    std::uint64_t compare_ns = 0;
    std::uint64_t host_ns = 0;
    // When the batch of the job, or else the job itself, began. 0: not yet.
    std::uint64_t since_ns = 0;
};

}  // namespace umbra::shadow
