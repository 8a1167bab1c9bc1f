// SPDX-License-Identifier: GPL-2.0-or-later
//
// A model guest that changes its tables at random, and the host mappings that follow.
#include <algorithm>
#include <array>
#include <optional>
#include <random>

#include "tests/qtest/shadow_fixture.h"

namespace umbra::qtest {
namespace {

class ShadowRandom : public ShadowFixture {};
UMBRA_ON_EACH_VIOMMU(ShadowRandom);

// A model guest that maps, unmaps, moves and resizes at random, and tells the unit with whichever
// invalidation covers it.
TEST_P(ShadowRandom, RandomGuest) {
    constexpr std::size_t kRegions = 8;  // of 2 MiB each
    constexpr int kSteps = 600;
    Listening on(options());
    std::mt19937_64 random(20'240'601);
    // What the guest has mapped: by page, or by region with a large leaf.
    std::array<std::optional<Gpa>, kRegions> large;
    std::array<std::array<std::optional<Gpa>, 512>, kRegions> small;
    const auto region_iova = [](std::size_t region) {
        return kIova + region * leaf_size(Leaf::page_2m);
    };
    const auto random_page = [&] { return kData + random() % 32768 * kPageSize; };

    for (int step = 0; step < kSteps; step++) {
        const std::size_t region = random() % kRegions;
        const std::size_t first = random() % 512;
        const std::size_t count = std::min<std::size_t>(512 - first, 1 + random() % 32);
        const auto action = static_cast<unsigned>(random() % 8);
        if (action == 0) {
            large.at(region) = kData + random() % 64 * leaf_size(Leaf::page_2m);
            on.table.map(region_iova(region), *large.at(region), Leaf::page_2m);
            small.at(region).fill(std::nullopt);
        } else if (action == 1) {
            large.at(region).reset();
            on.table.unmap(region_iova(region), Leaf::page_2m);
            small.at(region).fill(std::nullopt);
        } else {
            large.at(region).reset();
            const Gpa base = random_page();
            for (std::size_t i = first; i < first + count; i++) {
                std::optional<Gpa>& page = small.at(region).at(i);
                const Iova iova = region_iova(region) + i * kPageSize;
                if (action < 5) {
                    page = base + (i - first) * kPageSize;
                    on.table.map(iova, *page);
                } else {
                    page.reset();
                    on.table.unmap(iova);
                }
            }
        }
        const auto how = static_cast<unsigned>(random() % 16);
        if (how == 0) {
            on.submit(Descriptor::iotlb_global());
        } else if (how < 4) {
            on.submit(Descriptor::iotlb_domain(kDomain));
        } else {
            on.submit(Descriptor::iotlb_pages(kDomain, region_iova(region), 9));
        }
        if (step % 20 != 19) {
            continue;
        }
        Mappings expected;
        for (std::size_t r = 0; r < kRegions; r++) {
            if (large.at(r)) {
                expected.push_back(mapping(region_iova(r), *large.at(r), leaf_size(Leaf::page_2m)));
                continue;
            }
            for (std::size_t i = 0; i < 512; i++) {
                if (small.at(r).at(i)) {
                    expected.push_back(
                        mapping(region_iova(r) + i * kPageSize, *small.at(r).at(i), kPageSize));
                }
            }
        }
        const Mappings actual = on.live();
        if (!on_umbra() && actual != joined(expected)) {
            note("mappings follow the tables, up to step " + std::to_string(step), false);
            return;
        }
        ASSERT_EQ(actual, joined(expected)) << "step " << step;
    }
    expect_no_refusal(on.rig.probe);
}

}  // namespace
}  // namespace umbra::qtest
