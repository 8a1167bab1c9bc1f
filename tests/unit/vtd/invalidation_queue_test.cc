// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/invalidation_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>

#include "tests/unit/vtd/unit_fixture.h"

namespace umbra::vtd::testing {
namespace {

using Queue = UnitFixture;

std::uint64_t count(const Unit& unit, InvalidationKind kind) {
    return unit.counters().invalidation(kind, InvalidationPath::queue).value();
}

TEST_F(Queue, TellsTheObserverOfEveryKindWithItsFields) {
    UnitProperties properties;
    properties.device_iotlb = true;
    build(properties);
    start_queue();
    submit({context_global(), context_domain(0x11), context_device(0x12, 0x0345, 2), iotlb_global(),
            iotlb_domain(0x13), iotlb_pages(0x14, 0x7000), iotlb_pages(0x15, 0x12345000, 4, true),
            Quads{0x03 | 0x0456ULL << 32, 0x8000}, Quads{0x04, 0},
            Quads{0x14 | 3ULL << 27 | 0x25ULL << 32, 0}});
    const Journal expected = {"begin",
                              "context_global",
                              "context_domain 0x11",
                              "context_device 0x12 0x345 0x2",
                              "iotlb_global",
                              "iotlb_domain 0x13",
                              "iotlb_pages 0x14 0x7000 0x0",
                              "iotlb_pages 0x15 0x12340000 0x4 leaf_only",
                              "device_tlb 0x456 0x8000 0x8fff",
                              "interrupt_entries_global",
                              "interrupt_entries 0x20 0x3",
                              "barrier",
                              "end"};
    EXPECT_EQ(journal, expected);
    EXPECT_EQ(head(), 10U);
    EXPECT_EQ(read32(kFsts), 0U);
    for (std::size_t kind = 0; kind < kInvalidationKinds; ++kind) {
        const auto which = static_cast<InvalidationKind>(kind);
        EXPECT_EQ(count(*unit, which), which == InvalidationKind::iotlb_page ? 2U : 1U)
            << name_of(which);
        EXPECT_EQ(unit->counters().invalidation(which, InvalidationPath::registers).value(), 0U);
    }
    EXPECT_EQ(domain_counters(DomainId{0x13}).domain_invalidations.value(), 1U);
    EXPECT_EQ(domain_counters(DomainId{0x15}).page_invalidations.value(), 1U);
    EXPECT_EQ(domain_counters(DomainId{0x15}).pages_invalidated.value(), 16U);
}

TEST_F(Queue, BarrierComesBeforeEveryCompletion) {
    start_queue();
    unmask_completion_event();
    journal.clear();
    submit({iotlb_domain(1), wait_status(kStatus, 0xaa), iotlb_domain(2), wait_interrupt()});
    const Journal expected = {"begin",
                              "iotlb_domain 0x1",
                              "barrier",
                              "memory 0x1000 = 0xaa",
                              "iotlb_domain 0x2",
                              "barrier",
                              "message 0xfee02000 0x4022",
                              "barrier",
                              "end"};
    EXPECT_EQ(journal, expected);
}

TEST_F(Queue, StatusIsInMemoryWhenTheInterruptComes) {
    start_queue();
    unmask_completion_event();
    std::uint32_t seen = 0;
    messages.on_send = [&](std::uint64_t, std::uint32_t) {
        seen = memory.load<std::uint32_t>(kStatus);
    };
    // Status write and interrupt asked for by one descriptor, and by two.
    submit({iotlb_global(), Quads{0x05 | 1 << 5 | 1 << 4 | 0x1111ULL << 32, kStatus.value()}});
    EXPECT_EQ(seen, 0x1111U);
    write32(kIcs, 1);
    submit({wait_status(kStatus, 0x2222), iotlb_global(), wait_interrupt()});
    EXPECT_EQ(seen, 0x2222U);
}

TEST_F(Queue, InvalidationHasTakenEffectWhenTheStatusIsSeen) {
    const Gpa table = new_page();
    set_context(0x0010, 1, table);
    map(table, 0x5000, 0x9000);
    start_translation();
    start_queue();
    unmask_completion_event();
    ASSERT_TRUE(unit->translate(SourceId(0x0010), Iova(0x5000), Access::read).ok);
    unmap(table, 0x5000);
    ASSERT_TRUE(unit->translate(SourceId(0x0010), Iova(0x5000), Access::read).ok) << "cached";
    bool stale = true;
    messages.on_send = [&](std::uint64_t address, std::uint32_t) {
        if (address == kCompletionMessage) {
            stale = unit->translate(SourceId(0x0010), Iova(0x5000), Access::read).ok;
        }
    };
    submit({iotlb_pages(1, 0x5000), wait_interrupt()});
    EXPECT_FALSE(stale);
}

TEST_F(Queue, EverySizeIsUsedToItsLastSlotAndWraps) {
    for (unsigned size_field = 0; size_field < 8; ++size_field) {
        SCOPED_TRACE(size_field);
        build(UnitProperties());
        start_queue(size_field);
        const std::uint64_t slots = std::uint64_t{256} << size_field;
        for (std::uint64_t slot = 0; slot < slots; ++slot) {
            put(slot, iotlb_domain(static_cast<std::uint16_t>(slot)));
        }
        // The longest run there is: all slots but one.
        set_tail(slots - 1);
        EXPECT_EQ(head(), slots - 1);
        EXPECT_EQ(count(*unit, InvalidationKind::iotlb_domain), slots - 1);
        // The last slot, then around to the start and beyond.
        set_tail(0);
        EXPECT_EQ(head(), 0U);
        EXPECT_EQ(count(*unit, InvalidationKind::iotlb_domain), slots);
        set_tail(200);
        set_tail(100);
        EXPECT_EQ(head(), 100U);
        EXPECT_EQ(count(*unit, InvalidationKind::iotlb_domain), 2 * slots + 100);
        EXPECT_EQ(read32(kFsts), 0U);
        // Every descriptor was taken from its own slot, in order.
        journal.clear();
        set_tail(102);
        const Journal expected = {"begin", "iotlb_domain 0x64", "iotlb_domain 0x65", "barrier",
                                  "end"};
        EXPECT_EQ(journal, expected);
    }
}

TEST_F(Queue, EverySizeRefusesATailBeyondItsEnd) {
    // 32,768 slots are as many as the tail register can name, so the largest size has no such tail.
    for (unsigned size_field = 0; size_field < 7; ++size_field) {
        SCOPED_TRACE(size_field);
        build(UnitProperties());
        start_queue(size_field);
        const std::uint64_t slots = std::uint64_t{256} << size_field;
        submit({iotlb_global(), iotlb_global()});
        put(2, iotlb_domain(0x77));
        journal.clear();
        set_tail(slots);
        EXPECT_EQ(read32(kFsts) & kIqe, kIqe);
        EXPECT_EQ(head(), 2U);
        EXPECT_EQ(unit->counters().queue.errors[QueueError::tail_out_of_range].value(), 1U);
        EXPECT_EQ(std::count(journal.begin(), journal.end(), "iotlb_domain 0x77"), 0);
        // The tail must be put right before clearing IQE helps.
        write32(kFsts, kIqe);
        EXPECT_EQ(read32(kFsts) & kIqe, kIqe);
        set_tail(3);
        EXPECT_EQ(head(), 2U) << "nothing is fetched while IQE is set";
        write32(kFsts, kIqe);
        EXPECT_EQ(read32(kFsts) & kIqe, 0U);
        EXPECT_EQ(head(), 3U);
        EXPECT_EQ(std::count(journal.begin(), journal.end(), "iotlb_domain 0x77"), 1);
    }
}

TEST_F(Queue, TailBitsOutsideTheFieldAreIgnored) {
    start_queue();
    put(0, iotlb_global());
    write64(kIqt, 0xffff'ffff'fff8'000f | 1 << 4);
    EXPECT_EQ(read64(kIqt), 1U << 4);
    EXPECT_EQ(head(), 1U);
}

TEST_F(Queue, StopsAtABadDescriptorAndGoesOnWhenItIsReplaced) {
    start_queue();
    unmask_fault_event();
    submit({iotlb_domain(1), Quads{0xe, 0}, iotlb_domain(3)});
    EXPECT_EQ(head(), 1U);
    EXPECT_EQ(read32(kFsts) & kIqe, kIqe);
    EXPECT_EQ(count(*unit, InvalidationKind::iotlb_domain), 1U) << "the one before it took effect";
    EXPECT_EQ(unit->counters().queue.errors[QueueError::bad_type].value(), 1U);
    // As Linux does: the bad descriptor becomes a wait, IQE is cleared, and only the next
    // submission moves the tail.
    put(1, wait_status(kStatus, 0x33));
    set_tail(3);
    EXPECT_EQ(head(), 1U);
    write32(kFsts, kIqe);
    EXPECT_EQ(head(), 3U);
    EXPECT_EQ(memory.load<std::uint32_t>(kStatus), 0x33U);
    submit({iotlb_domain(4)});
    EXPECT_EQ(head(), 4U);
    EXPECT_EQ(count(*unit, InvalidationKind::iotlb_domain), 3U);
}

TEST_F(Queue, ClearingTheErrorWithoutACureSetsItAgain) {
    start_queue();
    submit({Quads{0x0, 0}});
    for (unsigned attempt = 2; attempt < 5; ++attempt) {
        write32(kFsts, kIqe);
        EXPECT_EQ(read32(kFsts) & kIqe, kIqe);
        EXPECT_EQ(head(), 0U);
        EXPECT_EQ(unit->counters().queue.errors[QueueError::bad_type].value(), attempt);
    }
}

TEST_F(Queue, ErrorComesAfterTheBarrierOfWhatWasDone) {
    start_queue();
    unmask_fault_event();
    journal.clear();
    submit({iotlb_domain(1), Quads{0x0, 0}});
    const Journal expected = {"begin", "iotlb_domain 0x1", "barrier", "message 0xfee01000 0x4021",
                              "end"};
    EXPECT_EQ(journal, expected);
}

TEST_F(Queue, WaitBehindABadDescriptorDoesNotComplete) {
    start_queue();
    memory.store(kStatus, std::uint32_t{0});
    submit({iotlb_pages(1, 0x1000, 19), wait_status(kStatus, 1)});
    EXPECT_EQ(memory.load<std::uint32_t>(kStatus), 0U);
    EXPECT_EQ(unit->counters().queue.errors[QueueError::reserved_field].value(), 1U);
}

TEST_F(Queue, QueueOutsideOfMemoryIsAnError) {
    write64(kIqa, kMemoryBytes);
    command(kQie);
    set_tail(1);
    EXPECT_EQ(read32(kFsts) & kIqe, kIqe);
    EXPECT_EQ(unit->counters().queue.errors[QueueError::fetch_failed].value(), 1U);
    EXPECT_EQ(head(), 0U);
}

TEST_F(Queue, QueueThatRunsOutOfMemoryStopsThere) {
    // The last page of memory, and a queue of two pages.
    write64(kIqa, (kMemoryBytes - kPageSize) | 1);
    for (std::uint64_t slot = 0; slot < 256; ++slot) {
        memory.store(Gpa(kMemoryBytes - kPageSize) + slot * 16, iotlb_global());
    }
    command(kQie);
    set_tail(300);
    EXPECT_EQ(head(), 256U);
    EXPECT_EQ(read32(kFsts) & kIqe, kIqe);
}

TEST_F(Queue, StatusAddressOutsideOfMemoryIsLostButCounted) {
    start_queue();
    submit({wait_status(Gpa(kMemoryBytes), 1), wait_status(kStatus, 2)});
    EXPECT_EQ(head(), 2U);
    EXPECT_EQ(read32(kFsts), 0U);
    EXPECT_EQ(unit->counters().queue.wait_status_lost.value(), 1U);
    EXPECT_EQ(unit->counters().queue.wait_status.value(), 1U);
    EXPECT_EQ(memory.load<std::uint32_t>(kStatus), 2U);
}

TEST_F(Queue, WaitCounters) {
    start_queue();
    submit({Quads{0x05, 0}, Quads{0x05 | 1 << 6, 0}, wait_interrupt(), wait_status(kStatus, 1),
            Quads{0x05 | 7 << 4 | 9ULL << 32, kStatus.value()}});
    const Counters& counters = unit->counters();
    EXPECT_EQ(counters.queue.wait_descriptors.value(), 5U);
    EXPECT_EQ(counters.queue.wait_fence.value(), 2U);
    EXPECT_EQ(counters.queue.wait_interrupt.value(), 2U);
    EXPECT_EQ(counters.queue.wait_status.value(), 2U);
    EXPECT_EQ(memory.load<std::uint32_t>(kStatus), 9U);
    EXPECT_EQ(counters.queue.tail_writes.value(), 2U) << "one of them when the queue was set up";
}

TEST_F(Queue, CompletionEventIsSentOnceUntilSoftwareClearsIt) {
    start_queue();
    unmask_completion_event();
    submit({wait_interrupt()});
    ASSERT_EQ(messages.sent.size(), 1U);
    EXPECT_EQ(messages.sent[0].first, kCompletionMessage);
    EXPECT_EQ(messages.sent[0].second, kCompletionData);
    EXPECT_EQ(read32(kIcs), 1U);
    EXPECT_EQ(read32(kIectl), 0U);
    submit({wait_interrupt(), wait_interrupt()});
    EXPECT_EQ(messages.sent.size(), 1U);
    write32(kIcs, 1);
    EXPECT_EQ(read32(kIcs), 0U);
    submit({wait_interrupt()});
    EXPECT_EQ(messages.sent.size(), 2U);
}

TEST_F(Queue, MaskedCompletionEventPends) {
    start_queue();
    unmask_completion_event();
    write32(kIectl, kIm);
    submit({wait_interrupt()});
    EXPECT_TRUE(messages.sent.empty());
    EXPECT_EQ(read32(kIectl), kIm | kIp);
    write32(kIectl, 0);
    EXPECT_EQ(messages.sent.size(), 1U);
    EXPECT_EQ(read32(kIectl), 0U);

    // Served while masked: nothing is left to send.
    write32(kIcs, 1);
    write32(kIectl, kIm);
    submit({wait_interrupt()});
    EXPECT_EQ(read32(kIectl), kIm | kIp);
    write32(kIcs, 1);
    EXPECT_EQ(read32(kIectl), kIm);
    write32(kIectl, 0);
    EXPECT_EQ(messages.sent.size(), 1U);
}

TEST_F(Queue, NothingIsFetchedWhileTheQueueIsOff) {
    put(0, iotlb_global());
    write64(kIqa, kQueue.value());
    set_tail(1);
    EXPECT_EQ(head(), 0U);
    EXPECT_TRUE(journal.empty());
    // Switched on, it takes up what is there.
    command(kQie);
    EXPECT_EQ(head(), 1U);
    EXPECT_EQ(count(*unit, InvalidationKind::iotlb_global), 1U);
}

TEST_F(Queue, SwitchingOffResetsTheHead) {
    start_queue();
    submit({iotlb_global(), iotlb_global()});
    EXPECT_EQ(head(), 2U);
    command_off(kQie);
    EXPECT_EQ(read32(kGsts) & kQie, 0U);
    EXPECT_EQ(head(), 0U);
}

TEST_F(Queue, ShrinkingARunningQueueBelowItsHeadIsAnError) {
    start_queue(3);
    for (std::uint64_t slot = 0; slot < 1000; ++slot) {
        put(slot, iotlb_global());
    }
    set_tail(1000);
    write64(kIqa, kQueue.value());
    set_tail(10);
    EXPECT_EQ(read32(kFsts) & kIqe, kIqe);
    EXPECT_EQ(unit->counters().queue.errors[QueueError::tail_out_of_range].value(), 1U);
    command_off(kQie);
    set_tail(0);
    write32(kFsts, kIqe);
    command(kQie);
    set_tail(1);
    EXPECT_EQ(head(), 1U);
    EXPECT_EQ(read32(kFsts), 0U);
}

TEST_F(Queue, WideDescriptorsCannotBeChosen) {
    write64(kIqa, kQueue.value() | 1 << 11);
    EXPECT_EQ(read64(kIqa), kQueue.value());
    command(kQie);
    put(0, iotlb_global());
    put(1, iotlb_global());
    // An odd slot is a valid tail for 128-bit descriptors only.
    set_tail(1);
    EXPECT_EQ(head(), 1U);
    EXPECT_EQ(read32(kFsts), 0U);
}

TEST_F(Queue, MessageThatLeadsBackToTheTailRegisterDoesNotRecurse) {
    start_queue();
    unmask_completion_event();
    unsigned deliveries = 0;
    messages.on_send = [&](std::uint64_t, std::uint32_t) {
        ++deliveries;
        write32(kIcs, 1);
        set_tail((head() + 100) % 256);
    };
    for (std::uint64_t slot = 0; slot < 256; ++slot) {
        put(slot, wait_interrupt());
    }
    set_tail(1);
    EXPECT_LE(deliveries, 256U);
    EXPECT_GT(deliveries, 1U);
    EXPECT_EQ(std::count(journal.begin(), journal.end(), "begin"), 1);
    EXPECT_EQ(std::count(journal.begin(), journal.end(), "end"), 1);
}

TEST_F(Queue, RandomDescriptorsNeverHangIt) {
    std::mt19937_64 random(20240611);
    start_queue(2);
    for (unsigned round = 0; round < 20000; ++round) {
        const std::uint64_t slot = head();
        Quads descriptor{random(), random()};
        if (round % 2 == 0) {
            descriptor.low = (descriptor.low & 0x0000'0003'ffff'0030) | (random() % 6);
            descriptor.high &= 0xffff'ffff'ffff'f07f;
        }
        put(slot, descriptor);
        set_tail((slot + 1) % 1024);
        if ((read32(kFsts) & kIqe) != 0) {
            ASSERT_EQ(head(), slot);
            put(slot, wait_status(kStatus, round));
            write32(kFsts, kIqe);
        }
        ASSERT_EQ(head(), (slot + 1) % 1024);
        write32(kIcs, 1);
    }
    const Counters& counters = unit->counters();
    EXPECT_GT(counters.queue.errors[QueueError::bad_type].value(), 0U);
    EXPECT_GT(counters.queue.errors[QueueError::reserved_field].value(), 0U);
    EXPECT_GT(count(*unit, InvalidationKind::iotlb_page), 0U);
}

}  // namespace
}  // namespace umbra::vtd::testing
