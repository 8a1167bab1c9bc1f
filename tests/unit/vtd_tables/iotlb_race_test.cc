// SPDX-License-Identifier: GPL-2.0-or-later
//
// Look-ups, fills and invalidations of several threads at once. The guest's table is an array of
// version numbers, one a page; a walk reads the page's present version. The guest changes a page
// and invalidates it, and from then on nobody may find an older version.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <latch>
#include <random>
#include <thread>
#include <vector>

#include "plugin/vtd/iotlb.h"

namespace umbra::vtd {
namespace {

constexpr std::size_t kPages = 8;
constexpr DomainId kDomain{3};

enum class Granularity { page, domain, global };

class IotlbRace : public ::testing::TestWithParam<Granularity> {};

TEST_P(IotlbRace, NothingStaleIsFoundAfterAnInvalidation) {
    constexpr std::uint64_t kChanges = 10000;
    constexpr unsigned kThreads = 3;
    Iotlb iotlb(2);  // six entries for eight pages: fills collide and displace
    std::array<std::atomic<std::uint64_t>, kPages> table{};
    std::array<std::atomic<std::uint64_t>, kPages> oldest_allowed{};
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> requests{0};
    std::atomic<std::uint64_t> stale{0};
    std::atomic<std::uint64_t> mixed{0};

    std::latch everyone(kThreads + 1);

    const auto dma = [&](unsigned seed) {
        std::mt19937 random(seed);
        everyone.arrive_and_wait();
        for (; !stop.load(std::memory_order_relaxed); ++requests) {
            const std::size_t page = random() % kPages;
            const Iova iova(page * kPageSize);
            const std::uint64_t oldest = oldest_allowed[page].load();
            if (const auto hit = iotlb.lookup(kDomain, iova)) {
                const std::uint64_t number = hit->address.value() >> kPageShift;
                mixed += number % kPages != page ? 1 : 0;
                stale += number / kPages < oldest ? 1 : 0;
                continue;
            }
            const auto generation = iotlb.generation();
            WalkResult walk;
            walk.ok = walk.cacheable = true;
            walk.level = 1;
            walk.page_mask = kPageSize - 1;
            walk.granted = Access::read;
            walk.address = Gpa((table[page].load() * kPages + page) << kPageShift);
            if (random() % 16 == 0) {
                std::this_thread::yield();  // lets the guest change and invalidate meanwhile
            }
            iotlb.insert(kDomain, iova, walk, generation);
        }
    };
    std::vector<std::thread> threads;
    for (unsigned seed = 1; seed <= kThreads; ++seed) {
        threads.emplace_back(dma, seed);
    }
    everyone.arrive_and_wait();
    std::mt19937 random(9);
    for (std::uint64_t change = 1; change <= kChanges; ++change) {
        const std::size_t page = random() % kPages;
        // No change before the threads have done something since the one before it.
        for (const std::uint64_t seen = requests; requests == seen;) {
            std::this_thread::yield();
        }
        table[page] = change;
        switch (GetParam()) {
            case Granularity::page:
                iotlb.invalidate_pages(kDomain, IovaRange::pages(Iova(page * kPageSize), 0));
                break;
            case Granularity::domain:
                iotlb.invalidate_domain(kDomain);
                break;
            case Granularity::global:
                iotlb.invalidate_all();
                break;
        }
        oldest_allowed[page] = change;
    }
    stop = true;
    for (auto& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(stale, 0u);
    EXPECT_EQ(mixed, 0u);

    // Counts are still right: everything can be dropped, and is gone.
    iotlb.invalidate_all();
    EXPECT_EQ(iotlb.size(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Granularities, IotlbRace,
                         ::testing::Values(Granularity::page, Granularity::domain,
                                           Granularity::global));

}  // namespace
}  // namespace umbra::vtd
