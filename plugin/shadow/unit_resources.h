// SPDX-License-Identifier: GPL-2.0-or-later
//
// What all guest domains of one unit have in common: the ports to the outside, the operator's
// options, the budgets, and memory that one sync at a time uses.
//
// Threading: one thread at a time.
#pragma once

#include "counter_types.h"
#include "plugin/shadow/clock.h"
#include "plugin/shadow/compare.h"
#include "plugin/shadow/delta.h"
#include "plugin/shadow/events.h"
#include "plugin/shadow/mirror.h"
#include "plugin/shadow/options.h"
#include "plugin/shadow/page_arena.h"
#include "plugin/shadow/planner.h"
#include "plugin/shadow/ram_map.h"
#include "plugin/shadow/trouble_log.h"
#include "plugin/vtd/guest_memory.h"
#include "plugin/vtd/second_stage.h"

namespace umbra::shadow {

// Everything that is referred to outlives the unit's domains.
struct UnitResources {
    const GuestMemory& memory;
    const RamMap& ram;
    Events& events;
    const Clock& clock;
    const Options& options;
    const vtd::EntryFormat& format;
    telemetry::UnitShadowCounters& counters;

    // The unit's values "as of now", and the counts that no living domain has. Manager::counters()
    // adds those of the domains, so that a sync counts in one place.
    telemetry::SyncCounters syncs{};
    TroubleThrottle throttle{clock};
    MapErrorPolicy map_errors{.choice = options.on_map_error};
    PageArena arena{};
    TableBudget tables{};
    const CompareFunctions& compare = compare_functions();
    // Set when a sync leaves anything missing or stuck, and cleared by who finds nothing left.
    bool wants_retry = false;
    // Used by one sync at a time.
    Delta delta{};
    Plan plan{};
};

}  // namespace umbra::shadow
