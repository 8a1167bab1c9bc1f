// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "tests/unit/vtd/unit_fixture.h"

namespace umbra::vtd::testing {
namespace {

class Migration : public UnitFixture {
  protected:
    static constexpr SourceId kDevice{0x0010};

    // A unit with everything on and something in every register.
    void bring_up() {
        table_ = new_page();
        set_context(kDevice.value(), 3, table_);
        map(table_, 0x1000, 0x9000);
        memory.store(kInterruptTable + 0x50, Quads{1 | 0x31ULL << 16 | 3ULL << 40, 0});
        start_translation();
        start_remapping();
        start_queue(1);
        unmask_completion_event();
        write32(kFedata, kFaultData);
        // Registers that differ from what is latched.
        write64(kRtaddr, 0x7000);
        write64(kIrta, 0x8000);
        (void)unit->translate(kDevice, Iova(0x5000), Access::read);
        (void)unit->translate(kDevice, Iova(0x6000), Access::read);
        clear_record(0);
        submit({iotlb_global(), wait_interrupt()});
    }

    Gpa table_;
};

TEST_F(Migration, RestoredUnitGoesOnWhereTheOtherStopped) {
    bring_up();
    const SavedState state = unit->save();
    const std::unique_ptr<Unit> source = std::move(unit);
    unit = std::make_unique<Unit>(
        UnitProperties(),
        Unit::Ports{.memory = memory, .messages = messages, .observer = &observer});
    journal.clear();
    messages.sent.clear();
    ASSERT_TRUE(unit->restore(state));
    const Journal expected = {"begin", "translation on", "barrier", "end",
                              "begin", "remapping on",   "barrier", "end"};
    EXPECT_EQ(journal, expected);
    for (std::uint32_t offset = 0; offset < kRegisterSpace; offset += 4) {
        EXPECT_EQ(read32(offset), source->mmio_read(offset, 4)) << std::hex << offset;
    }
    // Latched tables, not what the registers say now.
    EXPECT_EQ(unit->translate(kDevice, Iova(0x1000), Access::read).address, Gpa(0x9000));
    EXPECT_EQ(unit->remap(kDevice, 0xfee0'0010 | 5 << 5, 0).vector, 0x31U);
    // The fault ring goes on behind the fault that is still pending.
    EXPECT_FALSE(unit->translate(kDevice, Iova(0x7000), Access::read).ok);
    EXPECT_TRUE(is_fault(record(2)));
    EXPECT_FALSE(is_fault(record(0)));
    // So does the queue; IWC was set, so there is no second interrupt before it is cleared.
    submit({iotlb_domain(3), wait_interrupt()});
    EXPECT_EQ(head(), 4U);
    EXPECT_TRUE(messages.sent.empty());
    // FEDATA's event is masked and pending, as it was.
    EXPECT_EQ(read32(kFectl), kIm | kIp);
    // Saving again gives what a third unit needs.
    EXPECT_EQ(unit->save().root_table, kRootTable.value());
}

TEST_F(Migration, SaveOfARestoredUnitIsTheSame) {
    bring_up();
    const SavedState state = unit->save();
    build(UnitProperties());
    ASSERT_TRUE(unit->restore(state));
    const SavedState again = unit->save();
    EXPECT_EQ(again.version, state.version);
    EXPECT_EQ(again.registers, state.registers);
    EXPECT_EQ(again.root_table, state.root_table);
    EXPECT_EQ(again.interrupt_table, state.interrupt_table);
    EXPECT_EQ(again.next_fault_record, state.next_fault_record);
}

TEST_F(Migration, CachedEntriesAreDropped) {
    bring_up();
    ASSERT_TRUE(unit->translate(kDevice, Iova(0x1000), Access::read).ok);
    const SavedState state = unit->save();
    unmap(table_, 0x1000);
    ASSERT_TRUE(unit->translate(kDevice, Iova(0x1000), Access::read).ok);
    ASSERT_TRUE(unit->restore(state));
    EXPECT_FALSE(unit->translate(kDevice, Iova(0x1000), Access::read).ok);
}

TEST_F(Migration, StateThatNoUnitCanHaveIsRefused) {
    bring_up();
    const SavedState good = unit->save();
    const auto refused = [&](const std::function<void(SavedState&)>& spoil) {
        SavedState bad = good;
        spoil(bad);
        build(UnitProperties());
        const bool accepted = unit->restore(bad);
        EXPECT_EQ(read32(kGsts), 0U) << "a refused state changes nothing";
        EXPECT_TRUE(journal.empty());
        return !accepted;
    };
    EXPECT_TRUE(refused([](SavedState& s) { s.version = 0; }));
    EXPECT_TRUE(refused([](SavedState& s) { s.version = 2; }));
    EXPECT_TRUE(refused([](SavedState& s) { s.next_fault_record = 8; }));
    EXPECT_TRUE(refused([](SavedState& s) { s.next_fault_record = 0xffff'ffff; }));
    EXPECT_TRUE(refused([](SavedState& s) { s.root_table |= 1; }));
    EXPECT_TRUE(refused([](SavedState& s) { s.root_table |= std::uint64_t{1} << 48; }));
    EXPECT_TRUE(refused([](SavedState& s) { s.interrupt_table |= 1 << 4; }));
    EXPECT_TRUE(refused([](SavedState& s) { s.interrupt_table |= 1 << 11; })) << "EIME, no EIM";
    EXPECT_TRUE(refused([](SavedState& s) { s.registers[kCap] ^= 0x80; })) << "another CM";
    EXPECT_TRUE(refused([](SavedState& s) { s.registers[kEcap] ^= 0x08; })) << "another IR";
    EXPECT_TRUE(refused([](SavedState& s) { s.registers[kGsts] = 1; })) << "a reserved bit";
    EXPECT_TRUE(refused([](SavedState& s) { s.registers[0x2ff] = 1; })) << "no register";
    build(UnitProperties());
    EXPECT_TRUE(unit->restore(good));
}

TEST_F(Migration, StateOfOtherPropertiesIsRefused) {
    bring_up();
    const SavedState state = unit->save();
    for (unsigned change = 0; change < 6; ++change) {
        UnitProperties properties;
        switch (change) {
            case 0:
                properties.caching_mode = false;
                break;
            case 1:
                properties.address_width = 39;
                break;
            case 2:
                properties.interrupt_remapping = false;
                break;
            case 3:
                properties.extended_interrupt_mode = true;
                break;
            case 4:
                properties.pass_through = false;
                break;
            default:
                properties.device_iotlb = true;
                break;
        }
        build(properties);
        EXPECT_FALSE(unit->restore(state)) << change;
    }
}

TEST_F(Migration, HostileQueuePositionsAreMetWithAnError) {
    bring_up();
    SavedState state = unit->save();
    // Head far beyond the end of the queue, tail as it was.
    state.registers[kIqh] = 0xf0;
    state.registers[kIqh + 1] = 0xff;
    state.registers[kIqh + 2] = 0x07;
    build(UnitProperties());
    ASSERT_TRUE(unit->restore(state));
    set_tail(0);
    EXPECT_EQ(read32(kFsts) & kIqe, kIqe);
}

}  // namespace
}  // namespace umbra::vtd::testing
