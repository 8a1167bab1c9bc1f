// SPDX-License-Identifier: GPL-2.0-or-later
//
// The histogram of a snapshot: a histogram.h reduced to the buckets that hold something, each with
// its upper bound, so that readers need not know how the bounds were chosen.
#pragma once

#include <cstdint>
#include <string_view>

#include "plugin/telemetry/histogram.h"
#include "plugin/telemetry/schema.h"
#include "snapshot_types.h"

namespace umbra::telemetry {

// The last bucket of a Histogram also takes all larger values: its bound is 2^64 - 1 here.
[[nodiscard]] snapshot::Histogram distribution(const Histogram& histogram);

// 0 if nothing was recorded.
[[nodiscard]] std::uint64_t mean(const snapshot::Histogram& histogram);
// As Histogram::quantile.
[[nodiscard]] std::uint64_t quantile(const snapshot::Histogram& histogram, double fraction);

// The histogram that `record` is, or nullptr.
[[nodiscard]] const snapshot::Histogram* as_histogram(const schema::Record& record);

// The name of an enumeration's value; that of the first for one that is not known here.
[[nodiscard]] std::string_view value_name(const schema::Field& field, std::uint64_t value);

}  // namespace umbra::telemetry
