// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the parts of a sync share during one call of Domain::run(): the data to work on, the time to
// work, and what is counted meanwhile. An object lives for that call.
//
// Threading: one thread at a time.
#pragma once

#include "counter_types.h"
#include "plugin/shadow/domain_leaves.h"
#include "plugin/shadow/slice.h"
#include "plugin/shadow/trouble_log.h"
#include "plugin/shadow/unit_resources.h"

namespace umbra::shadow {

struct SyncRun {
    UnitResources& unit;
    DomainLeaves& leaves;
    TroubleLog& log;
    Slice slice;
    // Counts of this call alone. The values "as of now" are not used.
    telemetry::SyncCounters tally{};
};

}  // namespace umbra::shadow
