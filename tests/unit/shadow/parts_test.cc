// SPDX-License-Identifier: GPL-2.0-or-later
//
// The small parts: comparison functions, the arena, the histogram, the recorder and the ledger.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <random>
#include <set>

#include "plugin/shadow/bitmap.h"
#include "plugin/shadow/clock.h"
#include "plugin/shadow/compare.h"
#include "plugin/shadow/page_arena.h"
#include "plugin/shadow/ram_map.h"
#include "plugin/telemetry/histogram.h"
#include "tests/support/ledger.h"
#include "tests/support/recorder.h"

namespace umbra::testing {
namespace {

struct alignas(4096) Page {
    std::uint64_t entries[kEntriesPerTable] = {};
};

class Comparison : public ::testing::TestWithParam<const char*> {
  protected:
    void SetUp() override {
        functions_ = shadow::compare_functions(GetParam());
        if (functions_ == nullptr) {
            GTEST_SKIP() << "this CPU has none of it";
        }
    }
    const shadow::CompareFunctions* functions_ = nullptr;
};

TEST_P(Comparison, FindsEachSingleBit) {
    auto guest = std::make_unique<Page>();
    auto copy = std::make_unique<Page>();
    std::mt19937_64 random(1);
    for (unsigned i = 0; i < kEntriesPerTable; ++i) {
        guest->entries[i] = copy->entries[i] = random();
    }
    EXPECT_EQ(functions_->differing_lines(guest->entries, copy->entries), 0U);
    for (unsigned i = 0; i < kEntriesPerTable; ++i) {
        for (unsigned bit = 0; bit < 64; ++bit) {
            guest->entries[i] ^= std::uint64_t{1} << bit;
            ASSERT_EQ(functions_->differing_lines(guest->entries, copy->entries),
                      std::uint64_t{1} << (i / shadow::kEntriesPerLine));
            guest->entries[i] ^= std::uint64_t{1} << bit;
        }
    }
}

TEST_P(Comparison, FindsAnyMixOfLines) {
    auto guest = std::make_unique<Page>();
    auto copy = std::make_unique<Page>();
    std::mt19937_64 random(2);
    for (unsigned round = 0; round < 2000; ++round) {
        *copy = *guest;
        std::uint64_t wanted = random();
        wanted &= random();
        for (std::size_t line = 0; line < shadow::kLinesPerTable; ++line) {
            if (((wanted >> line) & 1) != 0) {
                ++guest->entries[line * shadow::kEntriesPerLine + random() % 8];
            }
        }
        ASSERT_EQ(functions_->differing_lines(guest->entries, copy->entries), wanted);
    }
}

TEST_P(Comparison, SeesPresentEntries) {
    auto guest = std::make_unique<Page>();
    for (std::uint64_t& entry : guest->entries) {
        entry = ~std::uint64_t{3};
    }
    EXPECT_FALSE(functions_->any_present(guest->entries));
    for (unsigned i = 0; i < kEntriesPerTable; ++i) {
        guest->entries[i] |= 1 + i % 2;
        ASSERT_TRUE(functions_->any_present(guest->entries)) << i;
        guest->entries[i] &= ~std::uint64_t{3};
    }
}

INSTANTIATE_TEST_SUITE_P(Variants, Comparison, ::testing::Values("plain", "sse2", "avx2", "avx512"),
                         [](const auto& variant) { return std::string(variant.param); });

TEST(Comparison, ChoosesOne) {
    const shadow::CompareFunctions& chosen = shadow::compare_functions();
    EXPECT_EQ(shadow::compare_functions(chosen.name), &chosen);
    EXPECT_EQ(shadow::compare_functions("none"), nullptr);
}

TEST(EntryBitmap, SetsARange) {
    for (unsigned first = 0; first < kEntriesPerTable; first += 13) {
        for (unsigned last = first; last < kEntriesPerTable; last += 7) {
            shadow::EntryBitmap bits;
            bits.set(first, last);
            for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
                ASSERT_EQ(bits.test(slot), slot >= first && slot <= last)
                    << first << " to " << last;
            }
        }
    }
}

TEST(RamRun, HoldsWhatLiesInIt) {
    const shadow::RamRun run = {Gpa(0x10000), 0x4000, HostAddress(0x7f0000000000), false};
    EXPECT_TRUE(run.holds(Gpa(0x10000), 0x4000));
    EXPECT_TRUE(run.holds(Gpa(0x13000), 0x1000));
    EXPECT_FALSE(run.holds(Gpa(0x13000), 0x2000));
    EXPECT_FALSE(run.holds(Gpa(0xf000), 0x2000));
    EXPECT_FALSE(run.holds(Gpa(0x14000), 0x1000));
    EXPECT_FALSE(run.holds(Gpa(~std::uint64_t{0xfff}), 0x1000));
    EXPECT_FALSE(run.holds(Gpa(0x10000), ~std::uint64_t{0}));
}

TEST(PageArena, HandsOutDistinctZeroedPages) {
    shadow::PageArena arena;
    std::mt19937 random(3);
    std::vector<std::uint64_t*> pages;
    std::set<std::uint64_t*> seen;
    for (unsigned round = 0; round < 20'000; ++round) {
        // More and more, then fewer and fewer, over several regions.
        const bool grow = random() % 10 < (round < 10'000 ? 7U : 3U);
        if (grow || pages.empty()) {
            std::uint64_t* page = arena.acquire();
            ASSERT_NE(page, nullptr);
            ASSERT_EQ(reinterpret_cast<std::uintptr_t>(page) % kPageSize, 0U);
            ASSERT_TRUE(seen.insert(page).second) << "handed out twice";
            ASSERT_TRUE(std::all_of(page, page + kEntriesPerTable,
                                    [](std::uint64_t entry) { return entry == 0; }));
            std::fill(page, page + kEntriesPerTable, ~std::uint64_t{0});
            pages.push_back(page);
        } else {
            std::swap(pages[random() % pages.size()], pages.back());
            seen.erase(pages.back());
            arena.release(pages.back());
            pages.pop_back();
        }
        ASSERT_EQ(arena.in_use(), pages.size());
    }
}

TEST(Histogram, BucketsCoverEveryValueOnce) {
    using telemetry::Histogram;
    for (std::size_t bucket = 0; bucket + 1 < Histogram::kBuckets; ++bucket) {
        ASSERT_EQ(Histogram::bucket_of(Histogram::first_value(bucket)), bucket);
        ASSERT_EQ(Histogram::bucket_of(Histogram::last_value(bucket)), bucket);
        ASSERT_EQ(Histogram::last_value(bucket) + 1, Histogram::first_value(bucket + 1));
    }
    EXPECT_EQ(Histogram::bucket_of(~std::uint64_t{0}), Histogram::kBuckets - 1);
}

TEST(Histogram, QuantilesAreWithinAnEighth) {
    telemetry::Histogram histogram;
    EXPECT_EQ(histogram.quantile(0.5), 0U);
    std::vector<std::uint64_t> values;
    std::mt19937_64 random(4);
    for (unsigned i = 0; i < 10'000; ++i) {
        values.push_back(random() >> (30 + random() % 34));
        histogram.record(values.back());
    }
    std::sort(values.begin(), values.end());
    for (const double fraction : {0.01, 0.5, 0.9, 0.99, 1.0}) {
        const auto rank = static_cast<std::size_t>(fraction * 10'000) - 1;
        EXPECT_GE(histogram.quantile(fraction), values[rank]);
        EXPECT_LE(static_cast<double>(histogram.quantile(fraction)),
                  static_cast<double>(values[rank]) * 1.125 + 1);
    }
    EXPECT_EQ(histogram.max(), values.back());
    EXPECT_EQ(histogram.quantile(1.0), values.back());

    telemetry::Histogram sum;
    sum.record(7);
    sum.merge(histogram);
    EXPECT_EQ(sum.count(), 10'001U);
    EXPECT_EQ(sum.sum(), histogram.sum() + 7);
    EXPECT_EQ(sum.max(), histogram.max());
}

constexpr shadow::HostMapping mapping(std::uint64_t iova, std::uint64_t pages) {
    return {Iova(iova), pages * kPageSize, HostAddress(0x1000'0000 + iova), Gpa(iova),
            Access::read_write};
}

TEST(Recorder, KeepsTheRulesOfType1) {
    host::Recorder recorder;
    EXPECT_TRUE(recorder.map(mapping(0x10000, 4)).ok());
    EXPECT_EQ(recorder.map(mapping(0x13000, 1)).error(), EEXIST);
    EXPECT_EQ(recorder.map(mapping(0xf000, 2)).error(), EEXIST);
    EXPECT_EQ(recorder.map(mapping(0xf000, 16)).error(), EEXIST);
    EXPECT_TRUE(recorder.map(mapping(0x14000, 1)).ok());
    EXPECT_EQ(recorder.map(mapping(0x20800, 1)).error(), EINVAL);
    EXPECT_EQ(recorder.map(mapping(0x20000, 0)).error(), EINVAL);
    EXPECT_EQ(
        recorder.map({Iova(0x20000), kPageSize, HostAddress(0), Gpa(0), Access::none}).error(),
        EINVAL);

    EXPECT_EQ(recorder.unmap(Iova(0x11000), kPageSize).error(), EINVAL);
    EXPECT_EQ(recorder.unmap(Iova(0xf000), 2 * kPageSize).error(), EINVAL);
    EXPECT_EQ(recorder.unmap(Iova(0x12000), 16 * kPageSize).error(), EINVAL);
    EXPECT_EQ(recorder.mappings().size(), 2U);
    EXPECT_EQ(recorder.violations(), 9U);
    EXPECT_TRUE(recorder.unmap(Iova(0), 0x10 * kPageSize).ok()) << "nothing there";
    EXPECT_TRUE(recorder.unmap(Iova(0), 0x14 * kPageSize).ok());
    EXPECT_EQ(recorder.mappings().size(), 1U);
    EXPECT_FALSE(recorder.mappings().find(Iova(0x13000)).has_value());
    EXPECT_EQ(recorder.mappings().find(Iova(0x14fff)), mapping(0x14000, 1));

    recorder.entry_limit = 1;
    EXPECT_EQ(recorder.map(mapping(0x30000, 1)).error(), ENOSPC);
}

TEST(Ledger, RemembersWhatWasCarriedOut) {
    host::Recorder recorder;
    host::Ledger ledger(recorder);
    EXPECT_TRUE(ledger.map(mapping(0x10000, 1)).ok());
    EXPECT_FALSE(ledger.map(mapping(0x10000, 1)).ok());
    EXPECT_TRUE(ledger.map(mapping(0x20000, 1)).ok());
    EXPECT_TRUE(ledger.unmap(Iova(0x10000), kPageSize).ok());
    recorder.fail = [](bool, Iova, std::uint64_t) { return EBUSY; };
    EXPECT_FALSE(ledger.unmap(Iova(0x20000), kPageSize).ok());
    std::vector<shadow::HostMapping> found;
    EXPECT_TRUE(ledger.visit_mappings(
        [&](const shadow::HostMapping& mapping) { found.push_back(mapping); }));
    EXPECT_EQ(found, std::vector{mapping(0x20000, 1)});
}

TEST(SteadyClock, DoesNotGoBack) {
    const shadow::SteadyClock clock;
    std::uint64_t last = clock.now_ns();
    for (unsigned i = 0; i < 1000; ++i) {
        const std::uint64_t now = clock.now_ns();
        ASSERT_GE(now, last);
        last = now;
    }
}

}  // namespace
}  // namespace umbra::testing
