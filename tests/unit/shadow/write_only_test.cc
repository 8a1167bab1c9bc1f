// SPDX-License-Identifier: GPL-2.0-or-later
//
// Hosts that cannot map for writes alone.
#include <gtest/gtest.h>

#include "tests/unit/shadow/retries.h"

namespace umbra::testing {
namespace {

class WriteOnly : public Retries {
  protected:
    WriteOnly() {
        first_.recorder.reads_come_with_writes = true;
        machine_.manager.remove_device(first_);
        machine_.manager.add_device(first_);
        tables_.map(page(0), kRam, Access::write);
        invalidate(page(0));
    }
    void set_access(Access access) {
        tables_.map(page(0), kRam, access);
        invalidate(page(0));
    }
    [[nodiscard]] Access granted(const FakeDevice& device) const {
        return mapped(device.recorder, page(0)).access;
    }
    [[nodiscard]] std::uint64_t calls() const {
        return first_.recorder.map_calls() + first_.recorder.unmap_calls();
    }
};

TEST_F(WriteOnly, HostThatCannotTellIsNotCalled) {
    EXPECT_EQ(granted(first_), Access::read_write);
    const std::uint64_t before = calls();
    set_access(Access::read_write);
    set_access(Access::write);
    EXPECT_EQ(calls(), before);
    EXPECT_TRUE(machine_.manager.verify().clean());
    EXPECT_EQ(machine_.manager.verify().pending, 0U);
    set_access(Access::read);
    EXPECT_EQ(granted(first_), Access::read);
    EXPECT_EQ(calls(), before + 2);
    EXPECT_TRUE(machine_.manager.verify().clean());
}

// Where one host can tell, all are asked for what the guest grants.
TEST_F(WriteOnly, HostThatCanTellGrantsNoMore) {
    machine_.manager.add_device(second_);
    EXPECT_EQ(granted(first_), Access::write);
    EXPECT_EQ(granted(second_), Access::write);
    EXPECT_TRUE(machine_.manager.verify().clean());
    set_access(Access::read_write);
    EXPECT_EQ(granted(second_), Access::read_write);
    set_access(Access::write);
    EXPECT_EQ(granted(second_), Access::write);
    machine_.manager.remove_device(second_);
    invalidate(page(0));
    EXPECT_EQ(granted(first_), Access::read_write);
    EXPECT_TRUE(machine_.manager.verify().clean());
}

}  // namespace
}  // namespace umbra::testing
