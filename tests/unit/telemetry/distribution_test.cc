// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/telemetry/distribution.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace umbra::telemetry {
namespace {

TEST(Distribution, OfNothing) {
    const snapshot::Histogram made = distribution(Histogram{});
    EXPECT_TRUE(made.buckets.empty());
    EXPECT_EQ(made.count, 0u);
    EXPECT_EQ(mean(made), 0u);
    EXPECT_EQ(quantile(made, 0.5), 0u);
}

TEST(Distribution, KeepsWhatTheHistogramKnew) {
    std::mt19937_64 random(7);
    for (const std::size_t values : {1u, 2u, 10u, 1000u, 20'000u}) {
        Histogram histogram;
        for (std::size_t i = 0; i < values; ++i) {
            histogram.record(random() >> (random() % 64));
        }
        const snapshot::Histogram made = distribution(histogram);
        EXPECT_EQ(made.count, histogram.count());
        EXPECT_EQ(made.sum, histogram.sum());
        EXPECT_EQ(made.max, histogram.max());
        for (const double fraction : {0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0}) {
            // The histogram's own first answer for 0 is its first bucket as well.
            EXPECT_EQ(quantile(made, fraction), histogram.quantile(fraction))
                << fraction << " of " << values;
        }
        std::uint64_t sum = 0;
        std::uint64_t before = 0;
        for (const snapshot::Bucket& bucket : made.buckets) {
            EXPECT_GT(bucket.count, 0u);
            EXPECT_TRUE(sum == 0 || bucket.up_to > before) << "in ascending order";
            const bool last = bucket.up_to == std::numeric_limits<std::uint64_t>::max();
            const std::size_t index =
                last ? Histogram::kBuckets - 1 : Histogram::bucket_of(bucket.up_to);
            EXPECT_EQ(bucket.count, histogram.buckets()[index]);
            before = bucket.up_to;
            sum += bucket.count;
        }
        EXPECT_EQ(sum, made.count);
    }
}

}  // namespace
}  // namespace umbra::telemetry
