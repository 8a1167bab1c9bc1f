// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/context_cache.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <map>
#include <random>
#include <thread>
#include <vector>

namespace umbra::vtd {
namespace {

ContextLookup entry(std::uint16_t domain, std::uint64_t table = 0x1000, unsigned levels = 4,
                    TranslationType type = TranslationType::second_stage) {
    ContextLookup context;
    context.present = true;
    context.domain = DomainId{domain};
    context.table = Gpa(table);
    context.levels = levels;
    context.type = type;
    return context;
}

SourceId source(unsigned value) {
    return SourceId(static_cast<std::uint16_t>(value));
}

TEST(ContextCache, IsEmptyAtFirst) {
    const ContextCache cache;
    for (unsigned value = 0; value < 0x10000; ++value) {
        EXPECT_FALSE(cache.lookup(source(value)).present);
    }
}

TEST(ContextCache, GivesBackEveryFieldOfRandomEntries) {
    std::mt19937_64 random(3);
    ContextCache cache;
    for (int round = 0; round < 100000; ++round) {
        auto context = entry(static_cast<std::uint16_t>(random()), random() & 0x000ffffffffff000,
                             3 + random() % 2, static_cast<TranslationType>(random() % 3));
        context.fault_processing_disabled = random() % 2 != 0;
        const auto device = source(static_cast<unsigned>(random()));
        cache.insert(device, context, cache.generation());
        ASSERT_EQ(cache.lookup(device), context);
    }
}

TEST(ContextCache, DistinguishesSourcesThatShareASlot) {
    ContextCache cache;
    cache.insert(source(0x0123), entry(1), cache.generation());
    for (unsigned bits = 1; bits < 8; ++bits) {
        EXPECT_FALSE(cache.lookup(source(0x0123 | bits << 13)).present);
    }
    cache.insert(source(0xe123), entry(2), cache.generation());
    EXPECT_FALSE(cache.lookup(source(0x0123)).present);
    EXPECT_EQ(cache.lookup(source(0xe123)).domain, DomainId{2});
}

TEST(ContextCache, KeepsNoFaultyEntry) {
    ContextCache cache;
    ContextLookup blocked;
    blocked.reason = FaultReason::context_not_present;
    cache.insert(source(5), blocked, cache.generation());
    EXPECT_FALSE(cache.lookup(source(5)).present);
}

TEST(ContextCache, DropsAFillThatAnInvalidationOvertook) {
    ContextCache cache;
    const auto before = cache.generation();
    cache.invalidate_domain(DomainId{9});
    cache.insert(source(5), entry(1), before);
    EXPECT_FALSE(cache.lookup(source(5)).present);
    cache.insert(source(5), entry(1), cache.generation());
    EXPECT_TRUE(cache.lookup(source(5)).present);
}

TEST(ContextCache, FunctionMaskIgnoresBitsFromTheHighestDown) {
    const unsigned ignored[] = {0, 4, 6, 7};
    for (unsigned mask = 0; mask < 4; ++mask) {
        ContextCache cache;
        for (unsigned value = 0; value < 0x10000; ++value) {
            cache.insert(source(value), entry(1), cache.generation());
        }
        // 0x1fff and its like were displaced by 0xffff: the last eight buses' worth remain.
        const unsigned target = 0xe0fd;
        cache.invalidate_devices(SourceMatch(source(target), mask));
        for (unsigned value = 0xe000; value < 0x10000; ++value) {
            const bool covered = ((value ^ target) & ~ignored[mask]) == 0;
            ASSERT_EQ(cache.lookup(source(value)).present, !covered) << value << " mask " << mask;
        }
    }
}

TEST(ContextCache, InvalidatesExactlyWhatIsNamed) {
    std::mt19937 random(7);
    ContextCache cache;
    std::map<SourceId, ContextLookup> model;
    const auto forget = [&model](auto covered) {
        for (auto it = model.begin(); it != model.end();) {
            it = covered(it->first, it->second) ? model.erase(it) : std::next(it);
        }
    };
    for (int round = 0; round < 20000; ++round) {
        // Eight buses with two devices of eight functions each, so that masks have effect.
        const SourceId device(static_cast<std::uint8_t>(random() % 8),
                              static_cast<std::uint8_t>(random() % 16));
        const DomainId domain{static_cast<std::uint16_t>(random() % 5 * 0x3331)};
        const unsigned choice = random() % 100;
        if (choice < 80) {
            const auto context = entry(static_cast<std::uint16_t>(domain));
            cache.insert(device, context, cache.generation());
            model[device] = context;
        } else if (choice < 90) {
            const unsigned mask = random() % 4;
            const unsigned ignored = mask == 0 ? 0 : mask == 1 ? 4 : mask == 2 ? 6 : 7;
            cache.invalidate_devices(SourceMatch(device, mask));
            forget([&](SourceId other, const ContextLookup&) {
                return ((other.value() ^ device.value()) & ~ignored) == 0;
            });
        } else if (choice < 99) {
            cache.invalidate_domain(domain);
            forget([&](SourceId, const ContextLookup& held) { return held.domain == domain; });
        } else {
            cache.invalidate_all();
            model.clear();
        }
        for (unsigned bus = 0; bus < 8; ++bus) {
            for (unsigned devfn = 0; devfn < 16; ++devfn) {
                const SourceId probe(static_cast<std::uint8_t>(bus),
                                     static_cast<std::uint8_t>(devfn));
                const auto known = model.find(probe);
                const auto found = cache.lookup(probe);
                ASSERT_EQ(found.present, known != model.end());
                if (found.present) {
                    ASSERT_EQ(found, known->second);
                }
            }
        }
    }
}

// Threads read a "context entry" (its table address is a version number) and fill the cache while
// the guest changes it and invalidates. After an invalidation has returned, nobody may find what
// was there before it.
TEST(ContextCache, NoStaleEntrySurvivesAnInvalidationUnderConcurrentFills) {
    constexpr std::uint64_t kVersions = 5000;
    constexpr unsigned kThreads = 3;
    ContextCache cache;
    std::atomic<std::uint64_t> guest{1};
    std::atomic<std::uint64_t> floor{1};
    std::atomic<bool> stale{false};
    std::atomic<std::uint64_t> requests{0};
    const SourceId device(0x0408);

    std::latch everyone(kThreads + 1);

    const auto dma = [&] {
        everyone.arrive_and_wait();
        for (unsigned round = 0; guest.load() < kVersions; ++round, ++requests) {
            const std::uint64_t oldest = floor.load();
            const auto hit = cache.lookup(device);
            if (hit.present) {
                if (hit.table.value() >> kPageShift < oldest) {
                    stale = true;
                }
                std::this_thread::yield();
                continue;
            }
            const auto generation = cache.generation();
            const auto version = guest.load();
            if (round % 4 == 0) {
                std::this_thread::yield();  // lets the guest change and invalidate meanwhile
            }
            cache.insert(device, entry(1, version << kPageShift), generation);
        }
    };
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < kThreads; ++i) {
        threads.emplace_back(dma);
    }
    everyone.arrive_and_wait();
    for (std::uint64_t version = 2; version <= kVersions; ++version) {
        // No change before the threads have done something since the one before it.
        for (const std::uint64_t seen = requests; requests == seen;) {
            std::this_thread::yield();
        }
        guest = version;
        cache.invalidate_devices(SourceMatch(device, 0));
        floor = version;
    }
    for (auto& thread : threads) {
        thread.join();
    }
    EXPECT_FALSE(stale);
}

}  // namespace
}  // namespace umbra::vtd
