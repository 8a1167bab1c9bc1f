// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/telemetry/distribution.h"

#include <algorithm>
#include <cstddef>
#include <limits>

namespace umbra::telemetry {

snapshot::Histogram distribution(const Histogram& histogram) {
    snapshot::Histogram made;
    made.count = histogram.count();
    made.sum = histogram.sum();
    made.max = histogram.max();
    for (std::size_t bucket = 0; bucket < Histogram::kBuckets; ++bucket) {
        if (const std::uint64_t count = histogram.buckets()[bucket]; count > 0) {
            const bool open_ended = bucket + 1 == Histogram::kBuckets;
            made.buckets.push_back({.up_to = open_ended ? std::numeric_limits<std::uint64_t>::max()
                                                        : Histogram::last_value(bucket),
                                    .count = count});
        }
    }
    return made;
}

std::uint64_t mean(const snapshot::Histogram& histogram) {
    return histogram.count == 0 ? 0 : histogram.sum / histogram.count;
}

std::uint64_t quantile(const snapshot::Histogram& histogram, double fraction) {
    const double wanted = fraction * static_cast<double>(histogram.count);
    std::uint64_t seen = 0;
    for (const snapshot::Bucket& bucket : histogram.buckets) {
        seen += bucket.count;
        if (seen > 0 && static_cast<double>(seen) >= wanted) {
            return std::min(histogram.max, bucket.up_to);
        }
    }
    return histogram.max;
}

const snapshot::Histogram* as_histogram(const schema::Record& record) {
    return &record.message() == &snapshot::schema_of<snapshot::Histogram>()
               ? static_cast<const snapshot::Histogram*>(record.data())
               : nullptr;
}

std::string_view value_name(const schema::Field& field, std::uint64_t value) {
    return field.values[value < field.values.size() ? static_cast<std::size_t>(value) : 0];
}

}  // namespace umbra::telemetry
