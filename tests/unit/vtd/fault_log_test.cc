// SPDX-License-Identifier: GPL-2.0-or-later
//
// The fault log through the unit's registers, as a fault handler sees it. Faults come from a device
// that has no context entry.
#include <gtest/gtest.h>

#include <cstdint>

#include "tests/unit/vtd/unit_fixture.h"

namespace umbra::vtd::testing {
namespace {

class FaultLogTest : public UnitFixture {
  protected:
    FaultLogTest() { start_translation(); }

    void fault(std::uint16_t device, std::uint64_t iova = 0x1000, Access wanted = Access::read) {
        EXPECT_FALSE(unit->translate(SourceId(device), Iova(iova), wanted).ok);
    }
    [[nodiscard]] unsigned first_record() const { return read32(kFsts) >> 8 & 0xff; }
};

TEST_F(FaultLogTest, RecordSaysWhoWhereAndWhy) {
    fault(0x0123, 0x0000'1234'5678'9abc, Access::write);
    const Quads seen = record(0);
    EXPECT_TRUE(is_fault(seen));
    EXPECT_EQ(seen.low, 0x0000'1234'5678'9000U) << "the page, without the offset";
    EXPECT_EQ(source(seen), 0x0123U);
    EXPECT_EQ(reason(seen), 1U) << "root entry not present";
    EXPECT_EQ(seen.high >> 62 & 1, 0U) << "write";
    EXPECT_EQ(read32(kFsts), kPpf);

    fault(0x0123, 0x1000, Access::read);
    EXPECT_EQ(record(1).high >> 62 & 1, 1U) << "read";
}

TEST_F(FaultLogTest, RingFillsThenOverflows) {
    const unsigned count = record_count();
    ASSERT_EQ(count, 8U);
    for (unsigned i = 0; i < count; ++i) {
        EXPECT_EQ(read32(kFsts) & kPfo, 0U);
        fault(static_cast<std::uint16_t>(0x100 + i));
    }
    EXPECT_EQ(read32(kFsts), kPpf);
    fault(0x200);
    EXPECT_EQ(read32(kFsts), kPpf | kPfo);
    for (unsigned i = 0; i < count; ++i) {
        EXPECT_EQ(source(record(i)), 0x100 + i) << "the lost fault overwrote a record";
    }
    EXPECT_EQ(unit->counters().faults.recorded.value(), count);
    EXPECT_EQ(unit->counters().faults.overflowed.value(), 1U);
    EXPECT_EQ(unit->counters().fault(FaultReason::root_not_present).value(), count + 1U);
}

TEST_F(FaultLogTest, NothingIsRecordedWhileOverflowIsSet) {
    for (unsigned i = 0; i <= record_count(); ++i) {
        fault(static_cast<std::uint16_t>(0x100 + i));
    }
    for (unsigned i = 0; i < record_count(); ++i) {
        clear_record(i);
    }
    EXPECT_EQ(read32(kFsts) & (kPfo | kPpf), kPfo);
    fault(0x300);
    for (unsigned i = 0; i < record_count(); ++i) {
        EXPECT_FALSE(is_fault(record(i)));
    }
    write32(kFsts, kPfo);
    EXPECT_EQ(read32(kFsts) & (kPfo | kPpf), 0U);
    fault(0x301);
    EXPECT_EQ(read32(kFsts) & (kPfo | kPpf), kPpf);
}

TEST_F(FaultLogTest, RingGoesOnWhereItStopped) {
    // The handler's loop: from FRI on, until a register has no fault.
    unsigned expected = 0;
    for (unsigned round = 0; round < 3 * record_count(); ++round) {
        fault(static_cast<std::uint16_t>(round));
        EXPECT_EQ(first_record(), expected % record_count());
        const Quads seen = record(first_record());
        EXPECT_TRUE(is_fault(seen));
        EXPECT_EQ(source(seen), round);
        clear_record(first_record());
        EXPECT_EQ(read32(kFsts) & kPpf, 0U);
        ++expected;
    }
}

TEST_F(FaultLogTest, FirstRecordIndexStaysWhileFaultsArePending) {
    fault(0x1);
    clear_record(0);
    fault(0x2);
    fault(0x3);
    EXPECT_EQ(first_record(), 1U);
    clear_record(1);
    EXPECT_NE(read32(kFsts) & kPpf, 0U) << "another record still holds a fault";
    clear_record(2);
    EXPECT_EQ(read32(kFsts) & kPpf, 0U);
}

TEST_F(FaultLogTest, AnOldFaultInTheWayMeansOverflow) {
    for (unsigned i = 0; i < record_count(); ++i) {
        fault(static_cast<std::uint16_t>(0x100 + i));
    }
    // All free but the one whose turn it is.
    for (unsigned i = 1; i < record_count(); ++i) {
        clear_record(i);
    }
    fault(0x200);
    EXPECT_EQ(read32(kFsts) & kPfo, kPfo);
    EXPECT_EQ(source(record(0)), 0x100U);
    EXPECT_FALSE(is_fault(record(1)));
}

TEST_F(FaultLogTest, RepeatedFaultTakesOneRecord) {
    for (unsigned i = 0; i < 3 * record_count(); ++i) {
        fault(0x100, 0x5000 + i);
    }
    EXPECT_EQ(read32(kFsts), kPpf);
    EXPECT_FALSE(is_fault(record(1)));
    EXPECT_EQ(unit->counters().faults.collapsed.value(), 3 * record_count() - 1U);
    EXPECT_EQ(unit->counters().fault(FaultReason::root_not_present).value(), 3 * record_count());
    // What differs in page, direction, source or reason is another fault, and so is the same one
    // after software has taken note.
    const Gpa table = new_page();
    set_context(0x200, 1, table);
    fault(0x100, 0x6000);
    fault(0x100, 0x6000, Access::write);
    fault(0x101, 0x6000, Access::write);
    fault(0x201, 0x6000, Access::write);
    EXPECT_EQ(reason(record(4)), 2U);
    clear_record(4);
    fault(0x201, 0x6000, Access::write);
    EXPECT_TRUE(is_fault(record(5)));
    EXPECT_EQ(unit->counters().faults.recorded.value(), 6U);
}

TEST_F(FaultLogTest, EventIsSentOnceUntilEverythingIsServed) {
    unmask_fault_event();
    fault(0x1);
    ASSERT_EQ(messages.sent.size(), 1U);
    EXPECT_EQ(messages.sent[0].first, kFaultMessage);
    EXPECT_EQ(messages.sent[0].second, kFaultData);
    EXPECT_EQ(read32(kFectl), 0U) << "IP is clear once the interrupt is sent";
    fault(0x2);
    EXPECT_EQ(messages.sent.size(), 1U) << "a pending fault makes no new condition";
    clear_record(0);
    fault(0x3);
    EXPECT_EQ(messages.sent.size(), 1U);
    clear_record(1);
    clear_record(2);
    fault(0x4);
    EXPECT_EQ(messages.sent.size(), 2U);
}

TEST_F(FaultLogTest, MaskedEventPendsAndIsSentWhenUnmasked) {
    unmask_fault_event();
    write32(kFectl, kIm);
    fault(0x1);
    EXPECT_TRUE(messages.sent.empty());
    EXPECT_EQ(read32(kFectl), kIm | kIp);
    write32(kFectl, kIm);
    EXPECT_TRUE(messages.sent.empty());
    write32(kFectl, 0);
    ASSERT_EQ(messages.sent.size(), 1U);
    EXPECT_EQ(messages.sent[0].first, kFaultMessage);
    EXPECT_EQ(read32(kFectl), 0U);
    write32(kFectl, 0);
    EXPECT_EQ(messages.sent.size(), 1U);
}

TEST_F(FaultLogTest, PendingEventGoesAwayWhenSoftwareServesItMasked) {
    fault(0x1);
    fault(0x2);
    EXPECT_EQ(read32(kFectl), kIm | kIp) << "masked since reset";
    clear_record(0);
    EXPECT_EQ(read32(kFectl), kIm | kIp);
    clear_record(1);
    EXPECT_EQ(read32(kFectl), kIm);
    unmask_fault_event();
    EXPECT_TRUE(messages.sent.empty());
}

TEST_F(FaultLogTest, OverflowAloneKeepsTheEventPending) {
    for (unsigned i = 0; i <= record_count(); ++i) {
        fault(static_cast<std::uint16_t>(i));
    }
    for (unsigned i = 0; i < record_count(); ++i) {
        clear_record(i);
    }
    EXPECT_EQ(read32(kFectl), kIm | kIp);
    write32(kFsts, kPfo);
    EXPECT_EQ(read32(kFectl), kIm);
}

TEST_F(FaultLogTest, UpperAddressIsPartOfTheMessage) {
    write64(kFeaddr, 0x0000'0012'fee0'1004);
    write32(kFectl, 0);
    fault(0x1);
    ASSERT_EQ(messages.sent.size(), 1U);
    EXPECT_EQ(messages.sent[0].first, 0x0000'0012'fee0'1004U);
}

TEST_F(FaultLogTest, QueueErrorRaisesTheEventToo) {
    unmask_fault_event();
    start_queue();
    submit({Quads{0xf, 0}});
    EXPECT_EQ(read32(kFsts), kIqe);
    ASSERT_EQ(messages.sent.size(), 1U);
    EXPECT_EQ(messages.sent[0].first, kFaultMessage);
    fault(0x1);
    EXPECT_EQ(messages.sent.size(), 1U) << "IQE was pending";
    put(0, iotlb_global());
    write32(kFsts, kIqe);
    EXPECT_EQ(read32(kFsts), kPpf);
    fault(0x2);
    EXPECT_EQ(messages.sent.size(), 1U) << "PPF is pending";
}

TEST_F(FaultLogTest, FaultProcessingDisableKeepsTheLogEmpty) {
    const Gpa table = new_page();
    set_context(0x0010, 5, table, 1 << 1);
    unmask_fault_event();
    fault(0x0010);
    EXPECT_EQ(read32(kFsts), 0U);
    EXPECT_FALSE(is_fault(record(0)));
    EXPECT_TRUE(messages.sent.empty());
    EXPECT_EQ(unit->counters().faults.suppressed.value(), 1U);
    EXPECT_EQ(unit->counters().fault(FaultReason::read_denied).value(), 1U);
    EXPECT_EQ(domain_counters(DomainId{5}).faults.value(), 1U);
}

TEST_F(FaultLogTest, BothHalvesOfTheFaultBitWork) {
    fault(0x1);
    write64(record_offset(0) + 8, std::uint64_t{1} << 63);
    EXPECT_FALSE(is_fault(record(0)));
    EXPECT_EQ(read32(kFsts) & kPpf, 0U);
    fault(0x2);
    // The lower half of the upper quad clears nothing.
    write32(record_offset(1) + 8, 0xffff'ffff);
    write64(record_offset(1), ~std::uint64_t{0});
    EXPECT_TRUE(is_fault(record(1)));
}

}  // namespace
}  // namespace umbra::vtd::testing
