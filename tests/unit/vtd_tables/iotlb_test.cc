// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/iotlb.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <tuple>

namespace umbra::vtd {
namespace {

constexpr DomainId kDomain{7};

// What a walk would have found for a page of `level` at `page`.
WalkResult leaf(unsigned level, Gpa page, Access granted = Access::read_write) {
    WalkResult walk;
    walk.ok = walk.cacheable = true;
    walk.granted = granted;
    walk.level = level;
    walk.address = page;
    walk.page_mask = level_span(level) - 1;
    return walk;
}

void fill(Iotlb& iotlb, DomainId domain, Iova iova, const WalkResult& walk) {
    iotlb.insert(domain, iova, walk, iotlb.generation());
}

TEST(Iotlb, AnswersForEveryAddressOfAPageAndNoOther) {
    for (unsigned level = 1; level <= 3; ++level) {
        Iotlb iotlb;
        const std::uint64_t span = level_span(level);
        const Iova page(0x1234ull << 30);
        const Gpa target(0x15ull << 30);
        // Filled from the middle of the page.
        fill(iotlb, kDomain, page + span / 2 + 7, leaf(level, target + span / 2 + 7));
        for (const std::uint64_t offset : {std::uint64_t{0}, span / 3, span - 1}) {
            const auto hit = iotlb.lookup(kDomain, page + offset);
            ASSERT_TRUE(hit.has_value());
            EXPECT_EQ(hit->address, target + offset);
            EXPECT_EQ(hit->page_mask, span - 1);
            EXPECT_EQ(hit->granted, Access::read_write);
        }
        EXPECT_FALSE(iotlb.lookup(kDomain, page - 1).has_value());
        EXPECT_FALSE(iotlb.lookup(kDomain, page + span).has_value());
        EXPECT_FALSE(iotlb.lookup(DomainId{8}, page).has_value());
    }
}

TEST(Iotlb, KeepsPermissions) {
    Iotlb iotlb;
    fill(iotlb, kDomain, Iova(0x1000), leaf(1, Gpa(0x9000), Access::read));
    fill(iotlb, kDomain, Iova(0x2000), leaf(1, Gpa(0xa000), Access::write));
    EXPECT_EQ(iotlb.lookup(kDomain, Iova(0x1000))->granted, Access::read);
    EXPECT_EQ(iotlb.lookup(kDomain, Iova(0x2000))->granted, Access::write);
}

TEST(Iotlb, AFillReplacesTheSamePage) {
    Iotlb iotlb;
    fill(iotlb, kDomain, Iova(0x1000), leaf(1, Gpa(0x9000), Access::read));
    fill(iotlb, kDomain, Iova(0x1000), leaf(1, Gpa(0xb000), Access::read_write));
    EXPECT_EQ(iotlb.lookup(kDomain, Iova(0x1000))->address, Gpa(0xb000));
    EXPECT_EQ(iotlb.lookup(kDomain, Iova(0x1000))->granted, Access::read_write);
    EXPECT_EQ(iotlb.size(), 1u);
}

TEST(Iotlb, KeepsNoFaultAndNothingThatIsNotCacheable) {
    Iotlb iotlb;
    auto walk = leaf(1, Gpa(0x9000));
    walk.cacheable = false;
    fill(iotlb, kDomain, Iova(0x1000), walk);
    walk = leaf(1, Gpa(0x9000));
    walk.ok = false;
    fill(iotlb, kDomain, Iova(0x1000), walk);
    EXPECT_FALSE(iotlb.lookup(kDomain, Iova(0x1000)).has_value());
    EXPECT_EQ(iotlb.size(), 0u);
}

TEST(Iotlb, AddressesBeyondTheWidestTableAreNeverFound) {
    Iotlb iotlb;
    fill(iotlb, kDomain, Iova(0x1000), leaf(1, Gpa(0x9000)));
    for (unsigned bit = 48; bit < 64; ++bit) {
        EXPECT_FALSE(iotlb.lookup(kDomain, Iova(0x1000 | 1ull << bit)).has_value());
        iotlb.invalidate_pages(kDomain, IovaRange::pages(Iova(0x1000 | 1ull << bit), 0));
        EXPECT_TRUE(iotlb.lookup(kDomain, Iova(0x1000)).has_value());
    }
}

TEST(Iotlb, DropsAFillThatAnyInvalidationOvertook) {
    for (int kind = 0; kind < 3; ++kind) {
        Iotlb iotlb;
        const auto before = iotlb.generation();
        if (kind == 0) {
            iotlb.invalidate_all();
        } else if (kind == 1) {
            iotlb.invalidate_domain(kDomain);
        } else {
            iotlb.invalidate_pages(kDomain, IovaRange::pages(Iova(0x1000), 0));
        }
        iotlb.insert(kDomain, Iova(0x1000), leaf(1, Gpa(0x9000)), before);
        EXPECT_FALSE(iotlb.lookup(kDomain, Iova(0x1000)).has_value());
        EXPECT_EQ(iotlb.size(), 0u);
    }
}

TEST(Iotlb, AnyRangeThatTouchesALargePageDropsIt) {
    for (unsigned level = 2; level <= 3; ++level) {
        const std::uint64_t span = level_span(level);
        const Iova page(5 * level_span(3));
        for (const std::uint64_t offset : {std::uint64_t{0}, span / 2, span - kPageSize}) {
            Iotlb iotlb;
            fill(iotlb, kDomain, page, leaf(level, Gpa(0)));
            iotlb.invalidate_pages(kDomain, IovaRange::pages(page - kPageSize, 0));
            iotlb.invalidate_pages(kDomain, IovaRange::pages(page + span, 0));
            EXPECT_EQ(iotlb.size(), 1u);
            iotlb.invalidate_pages(kDomain, IovaRange::pages(page + offset, 0));
            EXPECT_EQ(iotlb.size(), 0u);
            EXPECT_FALSE(iotlb.lookup(kDomain, page).has_value());
        }
    }
}

TEST(Iotlb, AnAddressMaskRoundsTheAddressDown) {
    Iotlb iotlb;
    for (unsigned page = 0; page < 32; ++page) {
        fill(iotlb, kDomain, Iova(page * kPageSize), leaf(1, Gpa(0x100000 + page * kPageSize)));
    }
    iotlb.invalidate_pages(kDomain, IovaRange::pages(Iova(13 * kPageSize), 3));
    for (unsigned page = 0; page < 32; ++page) {
        const bool covered = page >= 8 && page < 16;
        EXPECT_EQ(iotlb.lookup(kDomain, Iova(page * kPageSize)).has_value(), !covered) << page;
    }
}

TEST(Iotlb, MasksBeyondTheAddressSpaceMeanTheWholeDomain) {
    for (unsigned mask = 36; mask < 70; ++mask) {
        Iotlb iotlb;
        fill(iotlb, kDomain, Iova(0x1000), leaf(1, Gpa(0x9000)));
        fill(iotlb, kDomain, Iova(1ull << 47), leaf(3, Gpa(0)));
        fill(iotlb, DomainId{8}, Iova(0x1000), leaf(1, Gpa(0x9000)));
        iotlb.invalidate_pages(kDomain, IovaRange::pages(Iova(0x5000), mask));
        EXPECT_EQ(iotlb.size(), 1u);
        EXPECT_TRUE(iotlb.lookup(DomainId{8}, Iova(0x1000)).has_value());
    }
}

TEST(Iotlb, HoldsWhatItsCapacityPromisesForNeighbouringPages) {
    Iotlb iotlb(64);
    for (std::uint64_t page = 0; page < iotlb.capacity(); ++page) {
        fill(iotlb, kDomain, Iova(page * kPageSize), leaf(1, Gpa(page * kPageSize)));
    }
    EXPECT_EQ(iotlb.size(), iotlb.capacity());
    for (std::uint64_t page = 0; page < iotlb.capacity(); ++page) {
        EXPECT_TRUE(iotlb.lookup(kDomain, Iova(page * kPageSize)).has_value());
    }
}

// Domain, level and page number of an entry.
using Key = std::tuple<std::uint16_t, unsigned, std::uint64_t>;
struct Target {
    std::uint64_t page;
    Access granted;
};

struct Shape {
    std::size_t sets;
    bool may_displace;  // too small for all the pages in use
    unsigned seed;
};

class IotlbAgainstModel : public ::testing::TestWithParam<Shape> {
  protected:
    // Few distinct addresses, so that ranges and pages often meet: a 2 GiB window at 256 GiB.
    Iova random_iova() {
        const std::uint64_t gib = random_() % 2;
        const std::uint64_t two_mib = random_() % 3 * 255;
        const std::uint64_t four_kib = random_() % 4 * 170;
        return Iova(256ull << 30 | gib << 30 | two_mib << 21 | four_kib << 12 | random_() % 4096);
    }
    std::mt19937_64 random_{GetParam().seed};
};

TEST_P(IotlbAgainstModel, FindsWhatItMustAndNothingElse) {
    const std::uint16_t domains[] = {1, 2, 65, 0xffff};  // 1 and 65 share a population counter
    Iotlb iotlb(GetParam().sets);
    std::map<Key, Target> model;

    const auto forget = [&model](auto covered) {
        for (auto it = model.begin(); it != model.end();) {
            it = covered(it->first) ? model.erase(it) : std::next(it);
        }
    };
    for (int round = 0; round < 60000; ++round) {
        const std::uint16_t domain = domains[random_() % 4];
        const Iova iova = random_iova();
        const unsigned choice = random_() % 1000;
        if (choice < 700) {
            const unsigned level = 1 + random_() % 3;
            const std::uint64_t span = level_span(level);
            const Target target{random_() % 1024 * span, static_cast<Access>(1 + random_() % 3)};
            fill(iotlb, DomainId{domain}, iova,
                 leaf(level, Gpa(target.page + iova.value() % span), target.granted));
            model[{domain, level, iova.value() / span}] = target;
        } else if (choice < 985) {
            const unsigned mask = random_() % 24;
            iotlb.invalidate_pages(DomainId{domain}, IovaRange::pages(iova, mask));
            const std::uint64_t bytes = kPageSize << mask;
            const std::uint64_t first = iova.value() / bytes * bytes;
            forget([&](const Key& key) {
                const auto [owner, level, number] = key;
                const std::uint64_t page = number * level_span(level);
                return owner == domain && page < first + bytes && first < page + level_span(level);
            });
        } else if (choice < 998) {
            iotlb.invalidate_domain(DomainId{domain});
            forget([&](const Key& key) { return std::get<0>(key) == domain; });
        } else {
            iotlb.invalidate_all();
            model.clear();
        }
        if (GetParam().may_displace) {
            ASSERT_LE(iotlb.size(), iotlb.capacity());
        } else {
            ASSERT_EQ(iotlb.size(), model.size());
        }
        for (int probe = 0; probe < 8; ++probe) {
            const std::uint16_t asked = domains[random_() % 4];
            const Iova address = random_iova();
            const auto hit = iotlb.lookup(DomainId{asked}, address);
            bool known = false;
            bool explained = false;
            for (unsigned level = 1; level <= 3; ++level) {
                const std::uint64_t span = level_span(level);
                const auto entry = model.find({asked, level, address.value() / span});
                if (entry == model.end()) {
                    continue;
                }
                known = true;
                explained |= hit.has_value() && hit->page_mask == span - 1 &&
                             hit->granted == entry->second.granted &&
                             hit->address.value() == entry->second.page + address.value() % span;
            }
            if (hit.has_value()) {
                ASSERT_TRUE(explained);
            } else if (!GetParam().may_displace) {
                ASSERT_FALSE(known);
            }
        }
    }
}

// 4,096 sets look every small range up page by page; 64 go through all sets for most ranges.
INSTANTIATE_TEST_SUITE_P(Shapes, IotlbAgainstModel,
                         ::testing::Values(Shape{4096, false, 1}, Shape{64, true, 2},
                                           Shape{4, true, 3}, Shape{1, true, 4}));

}  // namespace
}  // namespace umbra::vtd
