// SPDX-License-Identifier: GPL-2.0-or-later
//
// A strict reader of the OpenMetrics text format, version 1.0.0: everything that the standard says
// "MUST" about, as far as a unit's metrics use it, is an error here.
#pragma once

#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace umbra::testing {

class MetricsError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

struct Metric {
    std::string name;  // with its suffix
    std::map<std::string, std::string> labels;
    std::string value;  // as it stands there

    [[nodiscard]] double number() const;
};

struct MetricFamily {
    std::string name;
    std::string type;
    std::string unit;
    std::string help;
    std::vector<Metric> metrics;
};

// Throws MetricsError with the line's number.
[[nodiscard]] std::map<std::string, MetricFamily> parse_metrics(std::string_view text);

}  // namespace umbra::testing
