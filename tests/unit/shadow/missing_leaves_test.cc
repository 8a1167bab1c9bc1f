// SPDX-License-Identifier: GPL-2.0-or-later
//
// The set of leaves that a host mapper does not have, and passes over it.
#include <gtest/gtest.h>

#include <vector>

#include "plugin/shadow/missing_leaves.h"
#include "tests/support/fake_machine.h"

namespace umbra::testing {
namespace {

using shadow::LeafRef;
using shadow::MissingLeaves;
using Kind = MissingLeaves::Kind;
using Which = MissingLeaves::Which;

constexpr IovaRange pages(unsigned first, unsigned end) {
    return {Iova(first * kPageSize), Iova(end * kPageSize - 1)};
}

// A mirror with one table of 16 leaves, pages 0 to 15.
class Missing : public ::testing::Test {
  protected:
    Missing() {
        shadow::Table* table = &mirror_.root();
        for (unsigned level = 3; level >= 1; --level) {
            table = mirror_.add_child(*table, 0, Gpa(level * kPageSize), Access::read_write);
        }
        table_ = table;
        for (unsigned slot = 0; slot < 16; ++slot) {
            table_->copy[slot] = slot * kPageSize | 3;
        }
        table_->leaves = 16;
        missing_.reset_to_all(mirror_);
        missing_.remove(IovaRange::everything());
    }
    [[nodiscard]] LeafRef leaf(unsigned page) const { return {table_, page}; }
    // The pages at which the runs begin that the pass has yet to come to.
    std::vector<unsigned> left(Which which, IovaRange range, MissingLeaves::Pass& pass) {
        std::vector<unsigned> found;
        while (const LeafRef run = missing_.next_run(which, range, pass)) {
            found.push_back(static_cast<unsigned>(run.iova().value() / kPageSize));
        }
        return found;
    }
    std::vector<unsigned> all(Which which, IovaRange range = IovaRange::everything()) {
        MissingLeaves::Pass pass;
        return left(which, range, pass);
    }

    TableMemory memory_{16};
    shadow::PageArena arena_;
    shadow::TableBudget budget_{.limit = 16};
    shadow::Mirror mirror_{memory_, arena_, budget_, 16, FakeMachine::format, Gpa(0), 4};
    shadow::Table* table_ = nullptr;
    MissingLeaves missing_;
};

TEST_F(Missing, EverythingIsUntilItIsMapped) {
    EXPECT_TRUE(missing_.empty());
    missing_.reset_to_all(mirror_);
    EXPECT_EQ(missing_.size(), 16U);
    EXPECT_TRUE(missing_.has(leaf(7)));
    EXPECT_FALSE(missing_.any_lost());
    EXPECT_FALSE(missing_.any_put_off());
    missing_.remove(pages(4, 8));
    missing_.remove(leaf(0));
    missing_.remove(leaf(0));
    EXPECT_EQ(missing_.size(), 11U);
    EXPECT_FALSE(missing_.has(leaf(7)));
    missing_.reset();
    EXPECT_TRUE(missing_.empty());
    EXPECT_EQ(missing_.size(), 0U);
}

TEST_F(Missing, LostAndPutOffLeavesAreMissingToo) {
    missing_.add(pages(1, 2), Kind::plain);
    missing_.add(pages(3, 4), Kind::lost);
    missing_.put_off(pages(5, 7), Kind::plain);
    EXPECT_EQ(missing_.size(), 4U);
    EXPECT_TRUE(missing_.is_lost(leaf(3)));
    EXPECT_FALSE(missing_.is_lost(leaf(1)));
    EXPECT_TRUE(missing_.is_put_off(leaf(5)));
    EXPECT_EQ(missing_.first_put_off().slot, 5U);
    missing_.tried(pages(5, 6));
    EXPECT_EQ(missing_.first_put_off().slot, 6U);
    EXPECT_TRUE(missing_.has(leaf(5)));
    missing_.remove(IovaRange::everything());
    EXPECT_FALSE(missing_.any_lost());
    EXPECT_FALSE(missing_.any_put_off());
    EXPECT_FALSE(missing_.first_put_off());
}

TEST_F(Missing, APassNamesEachRunOnce) {
    missing_.add(pages(2, 6), Kind::plain);
    missing_.add(pages(9, 10), Kind::lost);
    table_->joined.set(3);
    table_->joined.set(4);
    EXPECT_EQ(all(Which::missing), (std::vector{2U, 5U, 9U}));
    EXPECT_EQ(all(Which::lost), std::vector{9U});
    EXPECT_EQ(all(Which::missing, pages(4, 7)), (std::vector{4U, 5U}))
        << "a run that begins before the range";
    EXPECT_EQ(all(Which::missing, pages(6, 9)), std::vector<unsigned>{});
}

TEST_F(Missing, APassThatStopsGoesOnWithTheSameRun) {
    missing_.add(pages(0, 4), Kind::plain);
    MissingLeaves::Pass pass;
    EXPECT_EQ(missing_.next_run(Which::missing, IovaRange::everything(), pass).slot, 0U);
    const LeafRef second = missing_.next_run(Which::missing, IovaRange::everything(), pass);
    MissingLeaves::stop_before(second, pass);
    missing_.remove(leaf(2));
    EXPECT_EQ(left(Which::missing, IovaRange::everything(), pass), (std::vector{1U, 3U}));
}

TEST_F(Missing, APassBeginsWhereAnEarlierOneGaveUp) {
    missing_.add(pages(0, 4), Kind::plain);
    MissingLeaves::Pass pass;
    (void)missing_.next_run(Which::missing, IovaRange::everything(), pass);
    (void)missing_.next_run(Which::missing, IovaRange::everything(), pass);
    missing_.give_up(Which::missing, IovaRange::everything(), pass);
    EXPECT_EQ(all(Which::missing), (std::vector{2U, 3U, 0U, 1U}));
    EXPECT_EQ(all(Which::missing, pages(0, 16)), (std::vector{0U, 1U, 2U, 3U}))
        << "only a pass over everything";
}

}  // namespace
}  // namespace umbra::testing
