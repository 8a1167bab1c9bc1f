// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/counters.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace umbra::vtd {
namespace {

TEST(DomainTable, KeepsDomainsApart) {
    DomainTable table;
    for (const std::uint16_t id : {0, 1, 255, 256, 65535}) {
        table.at(DomainId{id}).iotlb_hits.add(id + 1U);
    }
    std::vector<std::pair<unsigned, std::uint64_t>> seen;
    table.for_each([&](DomainId id, const DomainCounters& counters) {
        seen.emplace_back(static_cast<unsigned>(id), counters.iotlb_hits.value());
    });
    const std::vector<std::pair<unsigned, std::uint64_t>> expected = {
        {0, 1}, {1, 2}, {255, 256}, {256, 257}, {65535, 65536}};
    EXPECT_EQ(seen, expected);
}

TEST(DomainTable, FindAllocatesNothing) {
    DomainTable table;
    EXPECT_EQ(table.find(DomainId{300}), nullptr);
    table.at(DomainId{257}).faults.add();
    ASSERT_NE(table.find(DomainId{300}), nullptr) << "a neighbour shares the memory";
    EXPECT_FALSE(table.find(DomainId{300})->any());
    EXPECT_EQ(table.find(DomainId{600}), nullptr);
}

TEST(DomainTable, EveryCounterCountsForAny) {
    DomainCounters counters;
    for (Counter* counter :
         {&counters.iotlb_hits, &counters.iotlb_misses, &counters.domain_invalidations,
          &counters.page_invalidations, &counters.pages_invalidated, &counters.faults}) {
        EXPECT_FALSE(counters.any());
        counter->add();
        EXPECT_TRUE(counters.any());
        counters.clear();
    }
}

TEST(DomainTable, ConcurrentFirstUseLosesNoCount) {
    DomainTable table;
    constexpr unsigned kThreads = 4;
    constexpr unsigned kRounds = 2000;
    std::vector<std::thread> threads;
    threads.reserve(kThreads);
    for (unsigned i = 0; i < kThreads; ++i) {
        threads.emplace_back([&table] {
            for (unsigned round = 0; round < kRounds; ++round) {
                table.at(DomainId{static_cast<std::uint16_t>(round * 131)}).iotlb_hits.add();
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    std::uint64_t sum = 0;
    table.for_each(
        [&](DomainId, const DomainCounters& counters) { sum += counters.iotlb_hits.value(); });
    EXPECT_EQ(sum, std::uint64_t{kThreads} * kRounds);
}

TEST(Counters, SumsOverDomains) {
    Counters counters;
    counters.domains.at(DomainId{1}).iotlb_hits.add(3);
    counters.domains.at(DomainId{40000}).iotlb_hits.add(4);
    counters.domains.at(DomainId{40000}).iotlb_misses.add(5);
    EXPECT_EQ(counters.iotlb_hits(), 7U);
    EXPECT_EQ(counters.iotlb_misses(), 5U);
}

TEST(Counters, ClearLeavesNothing) {
    Counters counters;
    for (std::size_t kind = 0; kind < kInvalidationKinds; ++kind) {
        for (const InvalidationPath path : {InvalidationPath::queue, InvalidationPath::registers}) {
            counters.invalidation(static_cast<InvalidationKind>(kind), path).add();
        }
    }
    for (std::size_t error = 0; error < kQueueErrors; ++error) {
        counters.queue.errors[static_cast<QueueError>(error)].add();
    }
    for (Counter& counter : counters.fault_reasons) {
        counter.add();
    }
    Counter* const single[] = {&counters.register_commands_refused, &counters.queue.tail_writes,
                               &counters.queue.wait_descriptors,    &counters.queue.wait_status,
                               &counters.queue.wait_interrupt,      &counters.queue.wait_fence,
                               &counters.queue.wait_status_lost,    &counters.faults.recorded,
                               &counters.faults.overflowed,         &counters.faults.suppressed};
    for (Counter* counter : single) {
        counter->add();
    }
    counters.domains.at(DomainId{9}).faults.add();

    counters.clear();

    for (std::size_t kind = 0; kind < kInvalidationKinds; ++kind) {
        for (const InvalidationPath path : {InvalidationPath::queue, InvalidationPath::registers}) {
            EXPECT_EQ(counters.invalidation(static_cast<InvalidationKind>(kind), path).value(), 0U);
        }
    }
    for (std::size_t error = 0; error < kQueueErrors; ++error) {
        EXPECT_EQ(counters.queue.errors[static_cast<QueueError>(error)].value(), 0U);
    }
    for (const Counter& counter : counters.fault_reasons) {
        EXPECT_EQ(counter.value(), 0U);
    }
    for (const Counter* counter : single) {
        EXPECT_EQ(counter->value(), 0U);
    }
    counters.domains.for_each(
        [](DomainId id, const DomainCounters&) { ADD_FAILURE() << static_cast<unsigned>(id); });
}

TEST(Counters, NamesAreDistinct) {
    std::set<std::string> names;
    for (std::size_t i = 0; i < kInvalidationKinds; ++i) {
        names.insert(name_of(static_cast<InvalidationKind>(i)));
    }
    EXPECT_EQ(names.size(), kInvalidationKinds);
    EXPECT_EQ(names.count("unknown"), 0U);
    names.clear();
    for (std::size_t i = 0; i < kQueueErrors; ++i) {
        names.insert(name_of(static_cast<QueueError>(i)));
    }
    EXPECT_EQ(names.size(), kQueueErrors);
    EXPECT_EQ(names.count("unknown"), 0U);
    EXPECT_STRNE(name_of(InvalidationPath::queue), name_of(InvalidationPath::registers));
}

}  // namespace
}  // namespace umbra::vtd
