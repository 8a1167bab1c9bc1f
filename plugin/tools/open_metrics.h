// SPDX-License-Identifier: GPL-2.0-or-later
//
// A snapshot in the OpenMetrics text format (version 1.0.0), which Prometheus and others read.
// Names begin with "umbra_"; durations are in seconds.
#pragma once

#include <string>

#include "snapshot_types.h"

namespace umbra::tools {

[[nodiscard]] std::string to_open_metrics(const telemetry::snapshot::Snapshot& snapshot);

}  // namespace umbra::tools
