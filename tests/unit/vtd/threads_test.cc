// SPDX-License-Identifier: GPL-2.0-or-later
//
// DMA threads against the thread that writes registers. Assertions hold under any schedule; the
// sanitizer builds look at what cannot be asserted.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "tests/unit/vtd/unit_fixture.h"

namespace umbra::vtd::testing {
namespace {

// Memory and messages of the fixture record into one journal without a lock, so this test has its
// own sink and unit, and the guest side touches memory only before the threads start.
class CountingSink : public MessageSink {
  public:
    void send(std::uint64_t, std::uint32_t) override { ++count; }
    std::atomic<unsigned> count{0};
};

class Threads : public UnitFixture {
  protected:
    static constexpr unsigned kDmaThreads = 3;
};

TEST_F(Threads, TranslationsAreRightWhileEverythingIsInvalidated) {
    CountingSink sink;
    unit =
        std::make_unique<Unit>(UnitProperties(), Unit::Ports{.memory = memory, .messages = sink});
    constexpr unsigned kPages = 64;
    const Gpa tables[] = {new_page(), new_page()};
    for (std::uint16_t device = 0; device < 2; ++device) {
        set_context(device, static_cast<std::uint16_t>(device + 1), tables[device]);
        for (std::uint64_t page = 0; page < kPages; ++page) {
            map(tables[device], page << 12, (std::uint64_t{0x100} * (device + 1U) + page) << 12);
        }
    }
    for (std::uint64_t slot = 0; slot < 256; slot += 4) {
        put(slot, iotlb_domain(1));
        put(slot + 1, iotlb_pages(2, (slot % kPages) << 12, 3));
        put(slot + 2, context_global());
        put(slot + 3, iotlb_global());
    }
    start_translation();
    start_queue();
    write32(kFectl, 0);

    std::atomic<bool> stop{false};
    std::atomic<unsigned> wrong{0};
    std::vector<std::thread> dma;
    dma.reserve(kDmaThreads);
    for (unsigned thread = 0; thread < kDmaThreads; ++thread) {
        dma.emplace_back([&, thread] {
            for (unsigned round = thread; !stop.load(std::memory_order_relaxed); ++round) {
                const auto device = static_cast<std::uint16_t>(round % 2);
                const std::uint64_t page = round / 2 % kPages;
                const Translation translation =
                    unit->translate(SourceId(device), Iova(page << 12 | 5), Access::read_write);
                const std::uint64_t expected =
                    (std::uint64_t{0x100} * (device + 1U) + page) << 12 | 5;
                if (!translation.ok || translation.address.value() != expected) {
                    ++wrong;
                }
                // A fault now and then, to keep the log's lock busy.
                if (round % 64 == 0) {
                    (void)unit->translate(SourceId(0x0700), Iova(std::uint64_t{round % 4096} << 12),
                                          Access::read);
                }
            }
        });
    }
    for (unsigned round = 0; round < 3000; ++round) {
        set_tail(round * 37 % 256);
        clear_all_faults();
    }
    stop = true;
    for (std::thread& thread : dma) {
        thread.join();
    }
    EXPECT_EQ(wrong.load(), 0U);
    EXPECT_EQ(read32(kFsts) & kIqe, 0U);
    clear_all_faults();
    EXPECT_EQ(read32(kFsts) & (kPfo | kPpf), 0U);
    const Counters& counters = unit->counters();
    EXPECT_EQ(counters.fault(FaultReason::root_not_present).value() +
                  counters.fault(FaultReason::context_not_present).value(),
              counters.faults.recorded.value() + counters.faults.collapsed.value() +
                  counters.faults.overflowed.value());
}

TEST_F(Threads, SavesAndResetsBesideFaults) {
    CountingSink sink;
    unit =
        std::make_unique<Unit>(UnitProperties(), Unit::Ports{.memory = memory, .messages = sink});
    start_translation();
    const SavedState before = unit->save();
    std::atomic<bool> stop{false};
    std::thread dma([&] {
        while (!stop.load(std::memory_order_relaxed)) {
            (void)unit->translate(SourceId(0x0700), Iova(0x1000), Access::read);
        }
    });
    for (unsigned round = 0; round < 2000; ++round) {
        const SavedState state = unit->save();
        ASSERT_TRUE(unit->restore(state)) << "a state of one moment";
        if (round % 16 == 0) {
            unit->reset();
            ASSERT_TRUE(unit->restore(before));
        }
    }
    stop = true;
    dma.join();
}

}  // namespace
}  // namespace umbra::vtd::testing
