// SPDX-License-Identifier: GPL-2.0-or-later
//
// Maps for which there was no time.
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>

#include "tests/unit/shadow/retries.h"

namespace umbra::testing {
namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kLargeBytes = vtd::level_span(2);

// Each map takes a millisecond, and so long is a slice.
class RetriesInSlices : public Retries {
  protected:
    explicit RetriesInSlices(bool coalesce = false)
        : Retries({.coalesce = coalesce, .slice_ns = kMillisecond}) {
        slow_down(first_);
        slow_down(second_);
    }
    void slow_down(FakeDevice& device) {
        device.recorder.fail = [this](bool is_map, Iova iova, std::uint64_t) {
            machine_.clock.now += is_map ? kMillisecond : 0;
            return is_map && iova < refused_below_ ? EINVAL : 0;
        };
    }
    [[nodiscard]] std::uint64_t map_calls() const {
        return first_.recorder.map_calls() + second_.recorder.map_calls();
    }
    // A batch of invalidations, of which the work comes to an end in many short slices.
    template <class Batch>
    void expect_slices(std::uint64_t most_calls, Batch&& batch) {
        std::uint64_t before = map_calls();
        machine_.manager.batch_begin();
        batch();
        machine_.manager.barrier();
        EXPECT_FALSE(machine_.manager.caught_up());
        machine_.manager.batch_end();
        EXPECT_LE(map_calls() - before, most_calls);
        for (bool done = false; !done;) {
            if (between_slices) {
                between_slices();
            }
            before = map_calls();
            done = machine_.manager.run();
            EXPECT_LE(map_calls() - before, most_calls);
            ASSERT_TRUE(done || map_calls() > before) << "no progress";
        }
        EXPECT_TRUE(machine_.manager.caught_up());
    }

    // A flush begins with a few maps before it looks at the clock.
    static constexpr std::uint64_t kFew = 10;
    Iova refused_below_;
    std::function<void()> between_slices;
};

TEST_F(RetriesInSlices, MapsOfASyncStopWhenTheTimeHasCome) {
    tables_.map_pages(page(0), kRam, 200);
    expect_slices(kFew, [&] { invalidate_domain(); });
    expect_mapped(first_, 0, 200);
    EXPECT_EQ(host().map.calls, 200U);
    EXPECT_EQ(host().map.failures, 0U);
    EXPECT_EQ(host().map.retries, 0U) << "each was tried once";
    EXPECT_EQ(host().missing_leaves, 0U);
    EXPECT_TRUE(machine_.events.troubles.empty());
    EXPECT_EQ(machine_.manager.counters().sync.syncs[telemetry::SyncTrigger::domain], 1U);
    EXPECT_TRUE(machine_.manager.verify().clean());

    // A device that comes to the domain.
    expect_slices(kFew, [&] { machine_.manager.add_device(second_); });
    expect_mapped(second_, 0, 200);
    EXPECT_EQ(host().map.calls, 400U);
    EXPECT_EQ(host().map.retries, 0U);

    // Both, by pages.
    tables_.map_pages(page(1024), kRam + 1024 * kPageSize, 200);
    expect_slices(2 * kFew, [&] { invalidate(page(1024), 8); });
    expect_mapped(first_, 1024, 1224);
    expect_mapped(second_, 1024, 1224);
    EXPECT_EQ(host().map.calls, 800U);
    EXPECT_EQ(host().missing_leaves, 0U);
    EXPECT_EQ(first_.recorder.violations() + second_.recorder.violations(), 0U);
}

// Also what lies outside of the pages that were named.
TEST_F(RetriesInSlices, PagesWhoseInvalidationConcernsMore) {
    tables_.map_pages(page(0), kRam, 200);
    expect_slices(kFew, [&] { invalidate_domain(); });
    tables_.entry(page(0), 2) &= ~std::uint64_t{2};
    expect_slices(kFew, [&] { invalidate(page(8)); });
    expect_mapped(first_, 0, 200, Access::read);
    EXPECT_EQ(host().missing_leaves, 0U);
    EXPECT_EQ(host().map.retries, 0U);
}

// More in a row than a pass over what failed before has.
TEST_F(RetriesInSlices, FailuresDoNotEndWhatWasPutOff) {
    tables_.map_pages(page(0), kRam, 200);
    refused_below_ = page(40);
    expect_slices(kFew + 16, [&] { invalidate(page(0), 8); });
    expect_mapped(first_, 40, 200);
    EXPECT_EQ(host().missing_leaves, 40U);
    EXPECT_EQ(machine_.events.troubles.size(), 1U);
    refused_below_ = page(0);
    invalidate(page(0), 6);
    (void)machine_.manager.run();
    machine_.manager.batch_begin();
    machine_.manager.batch_end();
    while (!machine_.manager.run()) {
    }
    expect_mapped(first_, 0, 200);
}

TEST_F(RetriesInSlices, WhatTheGuestDoesMeanwhile) {
    tables_.map_pages(page(0), kRam, 300);
    unsigned slice = 0;
    between_slices = [&] {
        switch (++slice) {
            case 2:
                // What is put off is no error, and nobody has waited for it in vain.
                EXPECT_TRUE(machine_.manager.verify().clean());
                EXPECT_GT(machine_.manager.verify().pending, 0U);
                break;
            case 3:
                tables_.unmap_pages(page(5), 200);
                machine_.manager.batch_begin();
                invalidate(page(5), 8);
                machine_.manager.iotlb_domain(kDomain);
                machine_.manager.batch_end();
                break;
            case 5:
                machine_.ram.set({{kRam, FakeMachine::kRamBytes, kHost + 0x20'0000, false}});
                break;
            default:
                break;
        }
    };
    expect_slices(2 * kFew, [&] { invalidate(page(0), 9); });
    EXPECT_GT(slice, 5U);
    for (unsigned number = 0; number < 300; ++number) {
        const bool gone = number >= 5 && number < 205;
        EXPECT_EQ(mapped(first_.recorder, page(number)),
                  gone ? kNothing : at(0x20'0000 + number * kPageSize))
            << number;
    }
    EXPECT_EQ(first_.recorder.violations(), 0U);
    EXPECT_EQ(host().missing_leaves, 0U);
    EXPECT_EQ(host().pinned_bytes, 100 * kPageSize);
    EXPECT_EQ(host().map.bytes - host().unmap.bytes, host().pinned_bytes);
}

TEST_F(RetriesInSlices, DeviceThatLeavesMeanwhile) {
    machine_.manager.add_device(second_);
    tables_.map_pages(page(0), kRam, 100);
    machine_.manager.batch_begin();
    invalidate_domain();
    machine_.manager.barrier();
    machine_.contexts.block(kFirst);
    machine_.manager.context_device(kDomain, kFirst, 0);
    machine_.manager.batch_end();
    while (!machine_.manager.run()) {
    }
    EXPECT_EQ(first_.recorder.mappings().size(), 0U);
    expect_mapped(second_, 0, 100);
    EXPECT_EQ(host().missing_leaves, 0U);
    EXPECT_EQ(host().pinned_bytes, 100 * kPageSize);
}

// RAM that moves while a sync is under way: what moved goes at once, and nothing else is hurried.
TEST_F(RetriesInSlices, RamThatMovesMeanwhile) {
    for (unsigned table = 0; table < 100; ++table) {
        tables_.map_pages(page(table * kEntriesPerTable), kRam + table * kLargeBytes, 4);
    }
    machine_.manager.batch_begin();
    invalidate_domain();
    machine_.manager.barrier();
    machine_.manager.batch_end();
    ASSERT_GE(first_.recorder.mappings().size(), 2U);
    const auto calls = [&] { return map_calls() + first_.recorder.unmap_calls(); };
    std::uint64_t before = calls();
    // The first page of all moves.
    machine_.ram.set(
        {{kRam, kPageSize, kHost + 0x80'0000'0000, false},
         {kRam + kPageSize, FakeMachine::kRamBytes - kPageSize, kHost + kPageSize, false}});
    machine_.manager.ram_changed();
    EXPECT_LE(calls() - before, 2 + kFew);
    EXPECT_EQ(mapped(first_.recorder, page(0)), at(0x80'0000'0000));
    EXPECT_FALSE(machine_.manager.caught_up());
    for (bool done = false; !done;) {
        before = calls();
        done = machine_.manager.run();
        EXPECT_LE(calls() - before, kFew);
    }
    EXPECT_EQ(first_.recorder.mappings().size(), 400U);
    EXPECT_TRUE(machine_.manager.verify().clean());

    // All of it moves: everything goes at once, and comes in slices.
    machine_.ram.set({{kRam, FakeMachine::kRamBytes, kHost + kLargeBytes, false}});
    before = map_calls();
    machine_.manager.ram_changed();
    EXPECT_LE(map_calls() - before, kFew);
    first_.recorder.mappings().visit([](const shadow::HostMapping& mapping) {
        EXPECT_EQ(mapping.host, kHost + kLargeBytes + (mapping.guest - kRam));
    });
    while (!machine_.manager.run()) {
    }
    EXPECT_EQ(first_.recorder.mappings().size(), 400U);
    EXPECT_EQ(host().missing_leaves, 0U);
    EXPECT_TRUE(machine_.manager.verify().clean());
}

// The guest waits for its whole batch, through all slices and the pauses between them.
TEST_F(RetriesInSlices, WaitOfTheGuestHasThePauses) {
    tables_.map_pages(page(0), kRam, 100);
    unsigned pauses = 0;
    between_slices = [&] {
        ++pauses;
        machine_.clock.now += 5 * kMillisecond;
    };
    expect_slices(kFew, [&] { invalidate_domain(); });
    ASSERT_GE(pauses, 10U);
    const auto& latency = machine_.manager.counters().latency[telemetry::SyncTrigger::domain];
    EXPECT_EQ(latency.wait.count(), 1U);
    EXPECT_EQ(latency.total.max(), 100 * kMillisecond);
    EXPECT_EQ(latency.wait.max(), (100 + 5 * pauses) * kMillisecond);
}

// The clock is looked at between a few maps, more and more of them as long as they are quick.
TEST_F(Retries, FewMapsTakeNoLookAtTheClock) {
    machine_.clock.step = 1;
    const auto looks = [&](unsigned first_page, unsigned pages) {
        for (unsigned i = 0; i < pages; ++i) {
            tables_.map(page(first_page + 2 * i), kRam);
        }
        const std::uint64_t before = machine_.clock.now;
        invalidate(page(first_page), 9);
        return machine_.clock.now - before;
    };
    const std::uint64_t for_one = looks(0, 1);
    EXPECT_EQ(looks(512, 8), for_one);
    EXPECT_LE(looks(1024, 200), for_one + 8);
}

class RetriesOfRunsInSlices : public RetriesInSlices {
  protected:
    RetriesOfRunsInSlices() : RetriesInSlices(true) {}
};

// Of large ones there are fewer between two looks: what they cost is the memory that they pin.
TEST_F(RetriesOfRunsInSlices, LargeMappingsAreMappedOneByOne) {
    const std::uint64_t large = vtd::level_span(2);
    for (unsigned i = 0; i < 80; ++i) {
        // Eight leaves in a row are one mapping.
        tables_.map(Iova(i * large), kRam + (i + i / 8 * 8) * large, Access::read_write, 2);
    }
    expect_slices(1, [&] { invalidate_pages_of_all(); });
    EXPECT_EQ(first_.recorder.mappings().size(), 10U);
    EXPECT_EQ(host().map.calls, 10U);
}

}  // namespace
}  // namespace umbra::testing
