// SPDX-License-Identifier: GPL-2.0-or-later
//
// Medians and quartiles of repeated measurements.
#pragma once

#include <cstddef>
#include <vector>

namespace umbra::bench {

struct Summary {
    std::size_t samples = 0;
    double minimum = 0;
    double lower_quartile = 0;
    double median = 0;
    double upper_quartile = 0;
    double maximum = 0;
};

// All zero for an empty set. Quantiles are interpolated linearly between samples.
[[nodiscard]] Summary summarise(std::vector<double> samples);

}  // namespace umbra::bench
