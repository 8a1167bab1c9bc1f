// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/bench/device/statistics.h"

#include <algorithm>

namespace umbra::bench {

namespace {

double quantile(const std::vector<double>& sorted, double fraction) {
    const double position = fraction * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(position);
    const std::size_t above = std::min(below + 1, sorted.size() - 1);
    const double weight = position - static_cast<double>(below);
    return sorted[below] * (1 - weight) + sorted[above] * weight;
}

}  // namespace

Summary summarise(std::vector<double> samples) {
    if (samples.empty()) {
        return {};
    }
    std::sort(samples.begin(), samples.end());
    return {.samples = samples.size(),
            .minimum = samples.front(),
            .lower_quartile = quantile(samples, 0.25),
            .median = quantile(samples, 0.5),
            .upper_quartile = quantile(samples, 0.75),
            .maximum = samples.back()};
}

}  // namespace umbra::bench
