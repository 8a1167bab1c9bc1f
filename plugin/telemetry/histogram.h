// SPDX-License-Identifier: GPL-2.0-or-later
//
// A histogram of durations with log-linear buckets: each power of two is cut into 8 buckets of
// equal width, so a quantile is off by at most 1/8 of its value whatever its magnitude. Values
// below 8 have a bucket each. Fixed size, no allocation, recording costs a few instructions.
//
// Threading: one writer; readers on the same thread, or on a copy.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace umbra::telemetry {

class Histogram {
  public:
    static constexpr unsigned kSubBucketBits = 3;
    static constexpr std::size_t kSubBuckets = std::size_t{1} << kSubBucketBits;
    // Values of 2^37 and more (137 s in nanoseconds) share the last bucket.
    static constexpr unsigned kLargestExponent = 36;
    static constexpr std::size_t kBuckets = (kLargestExponent - kSubBucketBits + 2) * kSubBuckets;

    void record(std::uint64_t value) {
        ++buckets_[bucket_of(value)];
        ++count_;
        sum_ += value;
        max_ = std::max(max_, value);
    }

    [[nodiscard]] std::uint64_t count() const { return count_; }
    [[nodiscard]] std::uint64_t sum() const { return sum_; }
    [[nodiscard]] std::uint64_t max() const { return max_; }
    [[nodiscard]] const std::array<std::uint32_t, kBuckets>& buckets() const { return buckets_; }

    // Upper bound of the bucket that holds the value of rank ceil(fraction * count), never more
    // than max(). 0 if nothing was recorded. `fraction` in 0..1.
    [[nodiscard]] std::uint64_t quantile(double fraction) const {
        const double wanted = fraction * static_cast<double>(count_);
        std::uint64_t seen = 0;
        for (std::size_t bucket = 0; bucket < kBuckets; ++bucket) {
            seen += buckets_[bucket];
            if (seen > 0 && static_cast<double>(seen) >= wanted) {
                return bucket + 1 == kBuckets ? max_ : std::min(max_, last_value(bucket));
            }
        }
        return max_;
    }

    void merge(const Histogram& other) {
        for (std::size_t bucket = 0; bucket < kBuckets; ++bucket) {
            buckets_[bucket] += other.buckets_[bucket];
        }
        count_ += other.count_;
        sum_ += other.sum_;
        max_ = std::max(max_, other.max_);
    }

    [[nodiscard]] static constexpr std::size_t bucket_of(std::uint64_t value) {
        if (value < kSubBuckets) {
            return static_cast<std::size_t>(value);
        }
        const auto exponent = static_cast<unsigned>(std::bit_width(value)) - 1;
        if (exponent > kLargestExponent) {
            return kBuckets - 1;
        }
        const unsigned shift = exponent - kSubBucketBits;
        return (shift + 1) * kSubBuckets +
               static_cast<std::size_t>((value >> shift) & (kSubBuckets - 1));
    }
    // Smallest and largest value that falls into `bucket` (the last bucket also takes all above).
    [[nodiscard]] static constexpr std::uint64_t first_value(std::size_t bucket) {
        if (bucket < kSubBuckets) {
            return bucket;
        }
        const std::size_t shift = bucket / kSubBuckets - 1;
        return (kSubBuckets + bucket % kSubBuckets) << shift;
    }
    [[nodiscard]] static constexpr std::uint64_t last_value(std::size_t bucket) {
        return bucket < kSubBuckets
                   ? bucket
                   : first_value(bucket) + ((std::uint64_t{1} << (bucket / kSubBuckets - 1)) - 1);
    }

  private:
    std::array<std::uint32_t, kBuckets> buckets_{};
    std::uint64_t count_ = 0;
    std::uint64_t sum_ = 0;
    std::uint64_t max_ = 0;
};

}  // namespace umbra::telemetry
