// SPDX-License-Identifier: GPL-2.0-or-later
//
// An observer that needs several turns for its work: the guest waits for it, and nothing else does.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/unit/vtd/unit_fixture.h"

namespace umbra::vtd::testing {
namespace {

// Has caught up after a number of barriers.
class SlowObserver final : public FakeObserver {
  public:
    using FakeObserver::FakeObserver;
    void barrier() override {
        FakeObserver::barrier();
        if (turns_left > 0) {
            --turns_left;
        }
    }
    [[nodiscard]] bool caught_up() const override { return turns_left == 0; }
    [[nodiscard]] bool has_time() const override { return looks_left > 0 && looks_left-- > 0; }
    unsigned turns_left = 0;
    mutable unsigned looks_left = 1000;
};

class DeferredWork : public UnitFixture {
  protected:
    DeferredWork() {
        unit = std::make_unique<Unit>(
            UnitProperties(),
            Unit::Ports{.memory = memory, .messages = messages, .observer = &slow});
        start_queue();
        journal.clear();
    }
    SlowObserver slow{journal};
};

TEST_F(DeferredWork, QueueStopsBeforeTheWaitAndGoesOn) {
    slow.turns_left = 3;
    submit(
        {iotlb_domain(1), wait_status(kStatus, 0xaa), iotlb_domain(2), wait_status(kStatus, 0xbb)});
    EXPECT_EQ(head(), 0U);
    EXPECT_EQ(memory.load<std::uint32_t>(kStatus), 0U);
    unit->resume();
    EXPECT_EQ(head(), 0U);
    unit->resume();
    EXPECT_EQ(head(), 4U);
    const Journal expected = {"begin",
                              "iotlb_domain 0x1",
                              "barrier",
                              "end",
                              "begin",
                              "barrier",
                              "end",
                              "begin",
                              "barrier",
                              "memory 0x1000 = 0xaa",
                              "iotlb_domain 0x2",
                              "barrier",
                              "memory 0x1000 = 0xbb",
                              "barrier",
                              "end"};
    EXPECT_EQ(journal, expected);
    unit->resume();
    EXPECT_EQ(journal, expected) << "nothing is left to do";
}

TEST_F(DeferredWork, WithoutTimeTheQueueKeepsWhatIsInIt) {
    // Each of these can make the platform rearrange a device's memory.
    std::vector<Quads> descriptors(100, context_global());
    descriptors.push_back(wait_status(kStatus, 0xaa));
    slow.looks_left = 10;
    submit(descriptors);
    EXPECT_EQ(head(), 11U);
    EXPECT_EQ(memory.load<std::uint32_t>(kStatus), 0U);
    EXPECT_TRUE(unit->has_work());
    unsigned turns = 0;
    while (unit->has_work()) {
        slow.looks_left = 10;
        unit->resume();
        ASSERT_LT(++turns, 100U);
    }
    EXPECT_GT(turns, 5U);
    EXPECT_EQ(head(), 101U);
    EXPECT_EQ(memory.load<std::uint32_t>(kStatus), 0xaaU);
    EXPECT_EQ(std::count(journal.begin(), journal.end(), "context_global"), 100);
}

TEST_F(DeferredWork, TimeIsLookedAtNowAndThenOnlyForWhatIsCheap) {
    slow.looks_left = 3;
    submit(std::vector<Quads>(200, iotlb_domain(1)));
    EXPECT_EQ(head(), 128U);
}

TEST_F(DeferredWork, MoreDescriptorsComeMeanwhile) {
    slow.turns_left = 2;
    submit({iotlb_domain(1), wait_status(kStatus, 0xaa)});
    submit({iotlb_domain(2), wait_status(kStatus, 0xbb)});
    EXPECT_EQ(memory.load<std::uint32_t>(kStatus), 0xbbU);
    EXPECT_EQ(head(), 4U);
}

TEST_F(DeferredWork, ErrorOfTheQueueComesAfterWhatIsBeforeIt) {
    slow.turns_left = 2;
    submit({iotlb_domain(1), Quads{0xf, 0}});
    EXPECT_EQ(read32(kFsts) & kIqe, 0U);
    EXPECT_EQ(head(), 0U);
    unit->resume();
    EXPECT_EQ(read32(kFsts) & kIqe, kIqe);
    EXPECT_EQ(head(), 1U);
}

// Firmware submits no wait, and polls the head.
TEST_F(DeferredWork, HeadPassesAnInvalidationWhenItHasTakenEffect) {
    submit({iotlb_domain(1), wait_status(kStatus, 1)});
    EXPECT_EQ(head(), 2U);
    slow.turns_left = 3;
    submit({iotlb_domain(2), iotlb_domain(3)});
    EXPECT_EQ(head(), 2U);
    EXPECT_TRUE(unit->has_work());
    slow.barrier();
    unit->resume();
    EXPECT_EQ(head(), 2U);
    slow.barrier();
    unit->resume();
    EXPECT_EQ(head(), 4U);
    EXPECT_FALSE(unit->has_work());
    EXPECT_EQ(std::count(journal.begin(), journal.end(), "iotlb_domain 0x2"), 1);
}

TEST_F(DeferredWork, SwitchingTheQueueOffForgetsTheWait) {
    slow.turns_left = 3;
    submit({iotlb_domain(1), wait_status(kStatus, 0xaa)});
    command_off(kQie);
    unit->resume();
    EXPECT_EQ(head(), 0U);
    EXPECT_EQ(read32(kGsts) & kQie, kQie) << "the invalidation has not taken effect";
    EXPECT_TRUE(unit->has_work());
    slow.barrier();
    slow.barrier();
    unit->resume();
    EXPECT_EQ(read32(kGsts) & kQie, 0U);
    EXPECT_EQ(head(), 0U);
    EXPECT_EQ(memory.load<std::uint32_t>(kStatus), 0U);
    EXPECT_FALSE(unit->has_work());
    // And it starts from its first descriptor.
    journal.clear();
    command(kQie);
    EXPECT_EQ(memory.load<std::uint32_t>(kStatus), 0xaaU);
    EXPECT_EQ(head(), 2U);
    EXPECT_EQ(std::count(journal.begin(), journal.end(), "iotlb_domain 0x1"), 1);
}

TEST_F(DeferredWork, QueueThatIsOnItsWayOffCanBeSwitchedOnAgain) {
    slow.turns_left = 2;
    submit({iotlb_domain(1), wait_status(kStatus, 0xaa)});
    command_off(kQie);
    command(kQie);
    slow.barrier();
    unit->resume();
    EXPECT_EQ(read32(kGsts) & kQie, kQie);
    EXPECT_EQ(memory.load<std::uint32_t>(kStatus), 0xaaU);
    EXPECT_EQ(head(), 2U);
}

TEST_F(DeferredWork, HeadOfASavedUnitIsFetchedAgain) {
    slow.turns_left = 2;
    submit({iotlb_domain(1), iotlb_domain(2)});
    const SavedState state = unit->save();
    journal.clear();
    ASSERT_TRUE(unit->restore(state));
    unit->resume();
    EXPECT_EQ(head(), 2U);
    EXPECT_EQ(std::count(journal.begin(), journal.end(), "iotlb_domain 0x1"), 1);
    EXPECT_EQ(std::count(journal.begin(), journal.end(), "iotlb_domain 0x2"), 1);
}

TEST_F(DeferredWork, InvalidationsByRegisterCompleteWhenTheyHaveTakenEffect) {
    command_off(kQie);
    slow.turns_left = 2;
    write64(kCcmd, std::uint64_t{1} << 63 | std::uint64_t{1} << 61);
    EXPECT_EQ(read64(kCcmd) >> 63, 1U);
    EXPECT_TRUE(unit->has_work());
    unit->resume();
    EXPECT_EQ(read64(kCcmd) >> 63, 1U) << "the observer is not done";
    slow.barrier();
    unit->resume();
    EXPECT_EQ(read64(kCcmd) >> 63, 0U);
    EXPECT_EQ(read64(kCcmd) >> 59 & 3, 1U) << "actual granularity";
    EXPECT_FALSE(unit->has_work());

    const auto iotlb = static_cast<std::uint32_t>((read64(kEcap) >> 8 & 0x3ff) * 16 + 8);
    slow.turns_left = 2;
    write64(iotlb, std::uint64_t{1} << 63 | std::uint64_t{2} << 60 | std::uint64_t{5} << 32);
    EXPECT_EQ(read64(iotlb) >> 63, 1U);
    slow.barrier();
    unit->resume();
    EXPECT_EQ(read64(iotlb) >> 63, 0U);
    EXPECT_EQ(read64(iotlb) >> 57 & 3, 2U) << "actual granularity";
}

TEST_F(DeferredWork, GlobalCommandsCompleteWhenTheyHaveTakenEffect) {
    start_translation();
    slow.turns_left = 2;
    command(kSrtp);
    EXPECT_EQ(read32(kGsts) & (kSrtp | kTe), kTe) << "the new root table is not in force yet";
    slow.barrier();
    unit->resume();
    EXPECT_EQ(read32(kGsts) & (kSrtp | kTe), kSrtp | kTe);

    command_off(kTe);
    slow.turns_left = 2;
    command(kTe);
    EXPECT_EQ(read32(kGsts) & kTe, 0U);
    EXPECT_TRUE(unit->translation_enabled()) << "for DMA it is on";
    command_off(kTe);
    slow.barrier();
    unit->resume();
    EXPECT_EQ(read32(kGsts) & kTe, 0U) << "the command that was taken back does not come later";
    EXPECT_FALSE(unit->translation_enabled());
}

TEST_F(DeferredWork, ResetForgetsCommands) {
    command_off(kQie);
    slow.turns_left = 3;
    write64(kCcmd, std::uint64_t{1} << 63 | std::uint64_t{1} << 61);
    unit->reset();
    EXPECT_EQ(slow.turns_left, 0U);
    EXPECT_FALSE(unit->has_work());
    EXPECT_EQ(read64(kCcmd), 0U);
}

}  // namespace
}  // namespace umbra::vtd::testing
