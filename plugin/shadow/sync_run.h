// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the parts of a sync share during one call of Domain::run(): the data to work on, the time to
// work, and where to count. An object lives for that call.
//
// Threading: one thread at a time.
#pragma once

#include <cstdint>

#include "counter_types.h"
#include "plugin/shadow/domain_leaves.h"
#include "plugin/shadow/slice.h"
#include "plugin/shadow/sync_job.h"
#include "plugin/shadow/trouble_log.h"
#include "plugin/shadow/unit_resources.h"

namespace umbra::shadow {

struct SyncRun {
    // All outlive the run. It is to end at `end_ns` of the unit's clock.
    SyncRun(UnitResources& unit, DomainLeaves& leaves, TroubleLog& log,
            telemetry::SyncCounters& tally, std::uint64_t end_ns)
        : unit(unit),
          leaves(leaves),
          log(log),
          tally(tally),
          slice(unit.clock, end_ns, unit.options.tables_per_look) {}

    UnitResources& unit;
    DomainLeaves& leaves;
    TroubleLog& log;
    // The domain's. The run adds to counts; the domain itself sets the values "as of now".
    telemetry::SyncCounters& tally;
    Slice slice;
    Refusals refused{};
};

}  // namespace umbra::shadow
