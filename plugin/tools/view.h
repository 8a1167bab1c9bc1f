// SPDX-License-Identifier: GPL-2.0-or-later
//
// A snapshot as text for people: tables as wide as a terminal, or one line.
#pragma once

#include <string>
#include <vector>

#include "snapshot_types.h"

namespace umbra::tools {

// What is shown: `now`, and what happened in the `seconds` before. If `seconds` is 0, `change` is
// everything since the statistics were cleared, and no rates are shown.
struct Moment {
    const telemetry::snapshot::Snapshot& now;
    const telemetry::snapshot::Snapshot& change;
    double seconds = 0;
};

[[nodiscard]] std::vector<std::string> page(const Moment& moment);

// Names the columns of line().
[[nodiscard]] std::string line_heading();
[[nodiscard]] std::string line(const Moment& moment);

}  // namespace umbra::tools
