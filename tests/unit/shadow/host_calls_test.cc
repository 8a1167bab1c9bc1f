// SPDX-License-Identifier: GPL-2.0-or-later
//
// Host calls, what their results say, and how they are counted.
#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "plugin/shadow/host_calls.h"
#include "tests/support/recorder.h"

namespace umbra::testing {
namespace {

using shadow::HostMapping;

constexpr IovaRange pages(unsigned first, unsigned end) {
    return {Iova(first * kPageSize), Iova(end * kPageSize - 1)};
}
HostMapping mapping(unsigned page) {
    return {Iova(page * kPageSize), kPageSize, HostAddress(page * kPageSize), Gpa(page * kPageSize),
            Access::read_write};
}

class Calls : public ::testing::Test {
  protected:
    host::Recorder recorder_;
    telemetry::HostCounters device_;
    telemetry::HostCounters unit_;
    std::unique_ptr<shadow::HostCalls> calls_ =
        std::make_unique<shadow::HostCalls>(recorder_, device_, unit_);
};

TEST_F(Calls, ResultsSayWhatTheHostMayHold) {
    recorder_.fail = [](bool is_map, Iova iova, std::uint64_t) {
        return is_map && iova == Iova(2 * kPageSize) ? EINVAL : 0;
    };
    const std::vector some = {mapping(0), mapping(1), mapping(2), mapping(3)};
    const shadow::MapProgress progress = calls_->map_all(some, 4 * kPageSize);
    EXPECT_EQ(progress.mapped, 2U);
    EXPECT_EQ(progress.result.error(), EINVAL);
    EXPECT_EQ(calls_->held().range(), pages(0, 2));
    EXPECT_TRUE(calls_->map(mapping(5)).ok());
    EXPECT_EQ(calls_->held().range(), pages(0, 6));
    calls_->tally().apply(0);
    EXPECT_EQ(device_.live_mappings, 3U);
    EXPECT_EQ(device_.pinned_bytes, 3 * kPageSize);

    recorder_.fail = [](bool, Iova, std::uint64_t) { return EBUSY; };
    EXPECT_FALSE(calls_->unmap(pages(0, 6)).ok());
    EXPECT_EQ(calls_->held().range(), pages(0, 6));
    recorder_.fail = nullptr;
    EXPECT_TRUE(calls_->unmap(pages(0, 6)).ok());
    EXPECT_TRUE(calls_->held().empty());
}

TEST_F(Calls, WhatIsStuckGoesWithALaterUnmap) {
    EXPECT_TRUE(calls_->map(mapping(0)).ok());
    calls_->stuck().add(pages(0, 1), {1, kPageSize});
    EXPECT_TRUE(calls_->unmap(pages(0, 8)).ok());
    EXPECT_TRUE(calls_->stuck().empty());
    calls_->tally().apply(0);
    EXPECT_EQ(device_.live_mappings, 0U);
    EXPECT_EQ(device_.pinned_bytes, 0U);
}

TEST_F(Calls, GiveUpAtTheLimitUntilSomethingGoes) {
    recorder_.entry_limit = 1;
    EXPECT_TRUE(calls_->map(mapping(0)).ok());
    EXPECT_FALSE(calls_->gave_up());
    EXPECT_FALSE(calls_->map(mapping(1)).ok());
    EXPECT_TRUE(calls_->limit_hit());
    EXPECT_TRUE(calls_->gave_up());
    EXPECT_TRUE(calls_->unmap(pages(0, 1)).ok());
    EXPECT_FALSE(calls_->gave_up());
}

TEST_F(Calls, GiveUpAfterManyRefusalsInARowForWantOfMemory) {
    int error = ENOMEM;
    recorder_.fail = [&](bool, Iova, std::uint64_t) { return error; };
    for (unsigned i = 0; i < 255; ++i) {
        EXPECT_FALSE(calls_->map(mapping(i)).ok());
    }
    EXPECT_FALSE(calls_->gave_up());
    error = 0;
    EXPECT_TRUE(calls_->map(mapping(1000)).ok());
    error = ENOMEM;
    for (unsigned i = 0; i < 256; ++i) {
        EXPECT_FALSE(calls_->map(mapping(i)).ok());
    }
    EXPECT_TRUE(calls_->gave_up());
    EXPECT_FALSE(calls_->limit_hit());
    calls_->begin();
    EXPECT_FALSE(calls_->gave_up());
}

TEST_F(Calls, NeverGiveUpForBadAddresses) {
    recorder_.fail = [](bool, Iova, std::uint64_t) { return EINVAL; };
    for (unsigned i = 0; i < 1000; ++i) {
        EXPECT_FALSE(calls_->map(mapping(i)).ok());
    }
    EXPECT_FALSE(calls_->gave_up());
}

TEST_F(Calls, RoomComesBackWithAnUnmapThatIsNoTakingBack) {
    recorder_.entry_limit = 1;
    EXPECT_TRUE(calls_->map(mapping(0)).ok());
    EXPECT_FALSE(calls_->map(mapping(1)).ok());
    EXPECT_FALSE(calls_->room_came_back());
    EXPECT_TRUE(calls_->take_back(pages(2, 3)).ok());
    EXPECT_FALSE(calls_->room_came_back());
    EXPECT_TRUE(calls_->gave_up());
    EXPECT_TRUE(calls_->unmap(pages(0, 1)).ok());
    EXPECT_TRUE(calls_->room_came_back());
    calls_->room_is_used(false);
    EXPECT_TRUE(calls_->unmap(pages(0, 1)).ok());
    EXPECT_FALSE(calls_->room_came_back()) << "nothing waits for it";
}

TEST_F(Calls, ShareOfTheGaugesMovesWithTheDevice) {
    telemetry::HostCounters domain;
    telemetry::HostCounters other;
    calls_->tally().join(domain);
    EXPECT_TRUE(calls_->map(mapping(0)).ok());
    calls_->tally().apply(7);
    EXPECT_EQ(domain.live_mappings, 1U);
    EXPECT_EQ(domain.missing_leaves, 7U);
    device_ = {};
    calls_->tally().leave();
    EXPECT_EQ(domain.live_mappings, 0U);
    EXPECT_EQ(domain.pinned_bytes, 0U);
    EXPECT_EQ(domain.missing_leaves, 0U);
    calls_->tally().join(other);
    EXPECT_EQ(other.live_mappings, 1U);
    EXPECT_EQ(unit_.live_mappings, 1U);
    calls_.reset();
    EXPECT_EQ(unit_.live_mappings, 0U);
    EXPECT_EQ(unit_.pinned_bytes, 0U);
    EXPECT_EQ(unit_.missing_leaves, 0U);
}

}  // namespace
}  // namespace umbra::testing
