// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/probe/mapping_model.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <memory>
#include <random>
#include <vector>

namespace umbra {
namespace {

constexpr std::uint64_t kAnyLimit = 1u << 20;

struct Deleter {
    void operator()(UmbraMappingModel* model) const { umbra_mapping_model_free(model); }
};
using Model = std::unique_ptr<UmbraMappingModel, Deleter>;

Model make(std::uint64_t limit = kAnyLimit) {
    return Model(umbra_mapping_model_new(limit));
}

UmbraMappingResult map(const Model& model, std::uint64_t first, std::uint64_t last) {
    const UmbraMapping mapping{.first = first, .last = last, .target = first + 7, .flags = 3};
    return umbra_mapping_model_map(model.get(), &mapping);
}

UmbraMappingResult unmap(const Model& model, std::uint64_t first, std::uint64_t last) {
    return umbra_mapping_model_unmap(model.get(), first, last);
}

TEST(MappingModel, RefusesAnyOverlap) {
    const Model model = make();
    EXPECT_EQ(map(model, 0x2000, 0x3fff), UMBRA_MAPPING_OK);
    EXPECT_EQ(map(model, 0x2000, 0x3fff), UMBRA_MAPPING_OVERLAP);
    EXPECT_EQ(map(model, 0x3fff, 0x4fff), UMBRA_MAPPING_OVERLAP);
    EXPECT_EQ(map(model, 0x1000, 0x2000), UMBRA_MAPPING_OVERLAP);
    EXPECT_EQ(map(model, 0x0000, 0x9fff), UMBRA_MAPPING_OVERLAP);
    EXPECT_EQ(map(model, 0x2800, 0x28ff), UMBRA_MAPPING_OVERLAP);
    EXPECT_EQ(map(model, 0x1000, 0x1fff), UMBRA_MAPPING_OK);
    EXPECT_EQ(map(model, 0x4000, 0x4fff), UMBRA_MAPPING_OK);
    EXPECT_EQ(umbra_mapping_model_count(model.get()), 3u);
    EXPECT_EQ(umbra_mapping_model_bytes(model.get()), 0x4000u);
}

TEST(MappingModel, UnmapTakesWholeMappingsAndRefusesToCut) {
    const Model model = make();
    ASSERT_EQ(map(model, 0x1000, 0x1fff), UMBRA_MAPPING_OK);
    ASSERT_EQ(map(model, 0x2000, 0x3fff), UMBRA_MAPPING_OK);
    ASSERT_EQ(map(model, 0x8000, 0x8fff), UMBRA_MAPPING_OK);
    EXPECT_EQ(unmap(model, 0x3000, 0x3fff), UMBRA_MAPPING_BISECT);
    EXPECT_EQ(unmap(model, 0x1000, 0x2fff), UMBRA_MAPPING_BISECT);
    EXPECT_EQ(umbra_mapping_model_count(model.get()), 3u) << "all or nothing";
    EXPECT_EQ(unmap(model, 0x5000, 0x7fff), UMBRA_MAPPING_EMPTY);
    EXPECT_EQ(unmap(model, 0x0000, 0x5fff), UMBRA_MAPPING_OK);
    EXPECT_EQ(umbra_mapping_model_bytes(model.get()), 0x1000u);
    EXPECT_EQ(unmap(model, 0, ~std::uint64_t{0}), UMBRA_MAPPING_OK);
    EXPECT_EQ(umbra_mapping_model_bytes(model.get()), 0u);
}

TEST(MappingModel, KeepsToItsLimit) {
    const Model model = make(2);
    EXPECT_EQ(map(model, 0x1000, 0x1fff), UMBRA_MAPPING_OK);
    EXPECT_EQ(map(model, 0x2000, 0x2fff), UMBRA_MAPPING_OK);
    EXPECT_EQ(map(model, 0x3000, 0x3fff), UMBRA_MAPPING_LIMIT);
    EXPECT_EQ(unmap(model, 0x1000, 0x1fff), UMBRA_MAPPING_OK);
    EXPECT_EQ(map(model, 0x3000, 0x3fff), UMBRA_MAPPING_OK);
}

TEST(MappingModel, ReadsInOrderFromACursor) {
    const Model model = make();
    for (const std::uint64_t first : {0x5000u, 0x1000u, 0x3000u}) {
        ASSERT_EQ(map(model, first, first + 0xfff), UMBRA_MAPPING_OK);
    }
    std::array<UmbraMapping, 2> into{};
    EXPECT_EQ(umbra_mapping_model_read(model.get(), 0, into.data(), into.size()), 2u);
    EXPECT_EQ(into[0].first, 0x1000u);
    EXPECT_EQ(into[1].first, 0x3000u);
    EXPECT_EQ(into[1].target, 0x3007u);
    EXPECT_EQ(umbra_mapping_model_read(model.get(), 0x3fff, into.data(), into.size()), 2u);
    EXPECT_EQ(into[0].first, 0x3000u);
    EXPECT_EQ(umbra_mapping_model_read(model.get(), 0x6000, into.data(), into.size()), 0u);
}

// Against a plain map, page by page.
TEST(MappingModel, AgreesWithABruteForceModel) {
    constexpr std::uint64_t kPages = 64;
    std::mt19937_64 random(3);
    const Model model = make();
    std::map<std::uint64_t, std::uint64_t> live;  // first page to last page
    for (int step = 0; step < 100'000; step++) {
        const std::uint64_t first = random() % kPages;
        const std::uint64_t last = std::min(kPages - 1, first + random() % 8);
        bool overlaps = false;
        bool cut = false;
        for (const auto& [from, to] : live) {
            const bool meets = from <= last && first <= to;
            overlaps |= meets;
            cut |= meets && (from < first || to > last);
        }
        if (random() % 2 == 0) {
            const auto result = map(model, first << 12, (last << 12) + 0xfff);
            ASSERT_EQ(result, overlaps ? UMBRA_MAPPING_OVERLAP : UMBRA_MAPPING_OK);
            if (!overlaps) {
                live[first] = last;
            }
        } else {
            const auto result = unmap(model, first << 12, (last << 12) + 0xfff);
            if (cut) {
                ASSERT_EQ(result, UMBRA_MAPPING_BISECT);
            } else {
                ASSERT_EQ(result, overlaps ? UMBRA_MAPPING_OK : UMBRA_MAPPING_EMPTY);
                std::erase_if(live, [&](const auto& entry) {
                    return entry.first >= first && entry.second <= last;
                });
            }
        }
        ASSERT_EQ(umbra_mapping_model_count(model.get()), live.size());
    }
}

}  // namespace
}  // namespace umbra
