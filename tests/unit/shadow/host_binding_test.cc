// SPDX-License-Identifier: GPL-2.0-or-later
//
// One device's binding to its host mapper, without a manager: the mirror and the deltas are made by
// hand.
#include <gtest/gtest.h>

#include <cerrno>
#include <limits>

#include "plugin/shadow/host_binding.h"
#include "tests/support/fake_machine.h"
#include "tests/support/recorder.h"

namespace umbra::testing {
namespace {

using shadow::HostMapping;

constexpr Iova page(unsigned number) {
    return Iova(number * kPageSize);
}

// A binding in a domain of one leaf table.
class Binding : public ::testing::Test {
  protected:
    Binding() {
        ram_map_.set({{FakeMachine::kRam, FakeMachine::kRamBytes, FakeMachine::kHost, false}});
        shadow::RamSnapshot before;
        ram_.update(ram_map_, before);
        shadow::Table* table = &mirror_.root();
        for (unsigned level = 3; level >= 1; --level) {
            table = mirror_.add_child(*table, 0, Gpa(level * kPageSize), Access::read_write);
        }
        leaves_ = table;
        binding_.join(mirror_, ram_, log_, domain_);
    }

    // What the host is told when the guest maps pages [first, end), each by itself.
    void map(unsigned first, unsigned end) {
        shadow::Delta delta;
        for (unsigned number = first; number < end; ++number) {
            const Gpa guest = FakeMachine::kRam + number * kPageSize;
            leaves_->copy[number] = guest.value() | 3;
            ++leaves_->leaves;
            delta.additions.push_back({page(number), kPageSize,
                                       FakeMachine::kHost + number * kPageSize, guest,
                                       Access::read_write});
        }
        execute(delta);
    }
    // The same when the guest unmaps them.
    void unmap(unsigned first, unsigned end) {
        shadow::Delta delta;
        for (unsigned number = first; number < end; ++number) {
            binding_.removing({leaves_, number}, 1, kPageSize);
            leaves_->copy[number] = 0;
            --leaves_->leaves;
            delta.removals.push_back({.iova = page(number),
                                      .bytes = kPageSize,
                                      .mapped_bytes = kPageSize,
                                      .mappings = 1});
        }
        execute(delta);
    }
    void execute(const shadow::Delta& delta) {
        shadow::Plan plan;
        plan.build(delta.removals, mirror_, ram_);
        shadow::Deadline deadline(clock_, std::numeric_limits<std::uint64_t>::max());
        binding_.begin();
        binding_.execute(plan, delta, deadline);
    }

    FakeClock clock_;
    FakeEvents events_;
    FakeRamMap ram_map_;
    shadow::RamSnapshot ram_;
    TableMemory memory_{16};
    shadow::PageArena arena_;
    shadow::TableBudget budget_{.limit = 16};
    shadow::Mirror mirror_{memory_, arena_, budget_, 16, FakeMachine::format, Gpa(0), 4};
    shadow::Table* leaves_ = nullptr;
    shadow::TroubleThrottle throttle_{clock_};
    shadow::MapErrorPolicy policy_;
    shadow::TroubleLog log_{events_, throttle_, policy_, DomainId{3}};
    host::Recorder recorder_;
    telemetry::HostCounters device_;
    telemetry::HostCounters unit_;
    telemetry::HostCounters domain_;
    shadow::HostBinding binding_{recorder_, device_, unit_};
};

TEST_F(Binding, LeavesNothingWhateverTheCountersSay) {
    map(0, 4);
    ASSERT_EQ(recorder_.mappings().size(), 4U);
    device_ = {};
    binding_.leave();
    EXPECT_EQ(recorder_.mappings().size(), 0U);
}

TEST_F(Binding, LeavesNothingEvenIfAMissingLeafWasTakenForAMappedOne) {
    recorder_.fail = [](bool is_map, Iova iova, std::uint64_t) {
        return is_map && iova == page(1) ? EINVAL : 0;
    };
    map(0, 2);
    ASSERT_EQ(recorder_.mappings().size(), 1U);
    // Without a word about the leaf that is missing.
    shadow::Delta delta;
    delta.removals.push_back(
        {.iova = page(1), .bytes = kPageSize, .mapped_bytes = kPageSize, .mappings = 1});
    execute(delta);
    binding_.leave();
    EXPECT_EQ(recorder_.mappings().size(), 0U);
}

TEST_F(Binding, AsksTheHostForNothingWhenItLeavesWithNothing) {
    map(0, 4);
    unmap(0, 4);
    const std::uint64_t calls = recorder_.unmap_calls();
    binding_.leave();
    EXPECT_EQ(recorder_.unmap_calls(), calls);
}

}  // namespace
}  // namespace umbra::testing
