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
    std::uint64_t refused_mappings = 0;
    std::uint64_t refused_tables = 0;
    std::uint64_t loops = 0;
    std::uint64_t compare_ns = 0;
    std::uint64_t host_ns = 0;
};

}  // namespace umbra::shadow
