// SPDX-License-Identifier: GPL-2.0-or-later
//
// An independent judge of OpenMetrics texts: the parser of Debian's python3-prometheus-client,
// which metrics_judge.py calls.
#pragma once

#include <string>
#include <vector>

namespace umbra::testing {

// For each text what is wrong with it; empty if nothing is. Throws std::runtime_error if the judge
// does not run.
[[nodiscard]] std::vector<std::string> judge_metrics(const std::vector<std::string>& texts);

}  // namespace umbra::testing
