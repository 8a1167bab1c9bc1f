// SPDX-License-Identifier: GPL-2.0-or-later
//
// Faults of DMA requests: their records, and the interrupt that tells software (specification 7).
#include "tests/qtest/viommu_test.h"

namespace umbra::qtest {
namespace {

using driver::Reason;

constexpr Iova kIova(0x7'6543'2000);

class Faults : public ViommuTest {
  protected:
    // A write and a read that both must fault, with this reason at this page.
    static void expect_both(Rig& rig, Reason reason, Iova iova = kIova) {
        rig.machine.store64(kData, 0);
        EXPECT_EQ(rig.probe.store(iova + 0x128, 1), DmaResult::fault);
        expect_fault(rig, {.source = kProbe, .address = iova, .reason = reason, .read = false});
        EXPECT_EQ(rig.probe.load(iova + 0x128), std::nullopt);
        expect_fault(rig, {.source = kProbe, .address = iova, .reason = reason, .read = true});
        EXPECT_EQ(rig.machine.load64(kData + 0x128), 0u);
    }

    static void expect_fault(Rig& rig, const Fault& expected) {
        EXPECT_NE(rig.driver.read32(driver::kFaultStatus) & driver::kFaultPending, 0u);
        const std::vector<Fault> faults = rig.driver.take_faults();
        ASSERT_EQ(faults.size(), 1u);
        EXPECT_EQ(faults[0].source, expected.source);
        EXPECT_EQ(faults[0].address, expected.address);
        EXPECT_EQ(faults[0].reason, expected.reason)
            << "reason " << static_cast<unsigned>(faults[0].reason);
        EXPECT_EQ(faults[0].read, expected.read);
        EXPECT_EQ(rig.driver.read32(driver::kFaultStatus) &
                      (driver::kFaultPending | driver::kFaultOverflow),
                  0u);
    }

    static void invalidate_all(Rig& rig) {
        const std::array<Descriptor, 2> all = {Descriptor::context_global(),
                                               Descriptor::iotlb_global()};
        ASSERT_TRUE(rig.driver.submit(all));
    }
};
UMBRA_ON_EACH_VIOMMU(Faults);

TEST_P(Faults, RootEntryNotPresent) {
    Rig rig(options());
    rig.driver.enable_translation();
    expect_both(rig, Reason::root_not_present);
}

TEST_P(Faults, ContextEntryNotPresent) {
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    rig.driver.attach(kSecondProbe, table, kDomain);
    rig.driver.enable_translation();
    expect_both(rig, Reason::context_not_present);
}

TEST_P(Faults, ContextEntryWithAnUnsupportedWidth) {
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    table.map(kIova, kData);
    // Five levels: no unit here reports them.
    rig.driver.contexts().set(kProbe, {.table = table.root(), .levels = 5, .domain = kDomain});
    rig.driver.enable_translation();
    expect_both(rig, Reason::context_invalid);
}

TEST_P(Faults, AddressBeyondTheTablesWidth) {
    Rig rig(options(39));
    SecondStage table = rig.driver.new_table();
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    expect_both(rig, Reason::address_beyond_width, Iova(std::uint64_t{1} << 39));
}

TEST_P(Faults, NothingMapped) {
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    for (unsigned level = 4; level >= 1; level--) {
        static_cast<void>(table.entry(kIova, level));
        EXPECT_EQ(rig.probe.store(kIova, 1), DmaResult::fault);
        expect_fault(
            rig,
            {.source = kProbe, .address = kIova, .reason = Reason::write_denied, .read = false});
        EXPECT_EQ(rig.probe.load(kIova), std::nullopt);
        expect_fault(
            rig, {.source = kProbe, .address = kIova, .reason = Reason::read_denied, .read = true});
    }
}

TEST_P(Faults, PermissionDenied) {
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    table.map(kIova, kData, Leaf::page_4k, driver::kEntryRead);
    table.map(kIova + kPageSize, kData, Leaf::page_4k, driver::kEntryWrite);
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();

    // Twice: from the tables, and from the unit's caches. The peer denies the second request too,
    // but records no fault for it, since it finds the translation in its IOTLB.
    for (int round = 0; round < 2; round++) {
        EXPECT_TRUE(rig.probe.load(kIova).has_value());
        EXPECT_EQ(rig.probe.store(kIova, 1), DmaResult::fault);
        if (on_umbra()) {
            expect_fault(rig, {.source = kProbe,
                               .address = kIova,
                               .reason = Reason::write_denied,
                               .read = false});
        }
        EXPECT_EQ(rig.probe.store(kIova + kPageSize, 1), DmaResult::ok);
        EXPECT_FALSE(rig.probe.load(kIova + kPageSize).has_value());
        if (on_umbra()) {
            expect_fault(rig, {.source = kProbe,
                               .address = kIova + kPageSize,
                               .reason = Reason::read_denied,
                               .read = true});
        }
    }
}

TEST_P(Faults, TableOutsideOfRam) {
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    table.set_entry(kIova, 3, 0x7f'ffff'f000 | driver::kEntryReadWrite);
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    expect_both(rig, Reason::paging_entry_access);
}

TEST_P(Faults, ContextTableOutsideOfRam) {
    Rig rig(options());
    rig.machine.store64(rig.driver.contexts().root_entry(0), 0x7f'ffff'f000 | 1);
    rig.driver.enable_translation();
    expect_both(rig, Reason::context_table_access);
}

TEST_P(Faults, RootTableOutsideOfRam) {
    Rig rig(options());
    rig.driver.enable_translation();
    rig.driver.write64(driver::kRootTableAddress, 0x7f'ffff'f000);
    ASSERT_TRUE(rig.driver.command(driver::kSetRootTable));
    invalidate_all(rig);
    expect_both(rig, Reason::root_table_access);
}

TEST_P(Faults, ReservedBitsOfTheRootEntry) {
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    table.map(kIova, kData);
    rig.driver.attach(kProbe, table, kDomain);
    const Gpa root = rig.driver.contexts().root_entry(0);
    rig.machine.store64(root, rig.machine.load64(root) | 1u << 4);
    rig.driver.enable_translation();
    expect_both(rig, Reason::root_reserved);
}

TEST_P(Faults, ReservedBitsOfTheContextEntry) {
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    table.map(kIova, kData);
    rig.driver.attach(kProbe, table, kDomain);
    const Gpa context = rig.driver.contexts().context_entry(kProbe);
    rig.machine.store64(context + 8, rig.machine.load64(context + 8) | std::uint64_t{1} << 40);
    rig.driver.enable_translation();
    expect_both(rig, Reason::context_reserved);
}

TEST_P(Faults, ReservedBitsOfPagingEntries) {
    struct Case {
        unsigned level;
        std::uint64_t bits;
    };
    // An address bit beyond any host width; the low bits of a large leaf's address; and the size
    // bit where there is no leaf.
    constexpr std::array<Case, 4> kCases = {{
        {1, std::uint64_t{1} << 51},
        {2, std::uint64_t{1} << 51},
        {2, driver::kEntryLeaf | 1u << 13},
        {4, driver::kEntryLeaf},
    }};
    Rig rig(options());
    for (const Case& param : kCases) {
        SCOPED_TRACE("level " + std::to_string(param.level) + " bits " +
                     std::to_string(param.bits));
        SecondStage table = rig.driver.new_table();
        table.map(kIova, kData);
        rig.driver.attach(kProbe, table, kDomain);
        const Gpa entry = table.entry(kIova, param.level);
        rig.machine.store64(entry, rig.machine.load64(entry) | param.bits);
        rig.driver.enable_translation();
        expect_both(rig, Reason::paging_entry_reserved);
    }
}

TEST_P(Faults, FaultProcessingDisabledRecordsNothing) {
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    rig.driver.contexts().set(kProbe, {.table = table.root(),
                                       .levels = table.levels(),
                                       .domain = kDomain,
                                       .fault_processing_disabled = true});
    rig.driver.enable_translation();
    EXPECT_EQ(rig.probe.store(kIova, 1), DmaResult::fault);
    EXPECT_EQ(rig.driver.read32(driver::kFaultStatus) & driver::kFaultPending, 0u);
    EXPECT_TRUE(rig.driver.take_faults().empty());
}

TEST_P(Faults, OverflowIsReportedAndTheFirstRecordsAreKept) {
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    const unsigned records = driver::fault_record_count(rig.driver.capability());
    for (unsigned i = 0; i < records; i++) {
        EXPECT_EQ(rig.probe.store(kIova + i * kPageSize, 1), DmaResult::fault);
    }
    EXPECT_EQ(rig.driver.read32(driver::kFaultStatus) & driver::kFaultOverflow, 0u);
    // From another function: a unit may collapse pending faults of one source (7.2.1).
    EXPECT_EQ(rig.second.store(kIova, 1), DmaResult::fault);
    EXPECT_NE(rig.driver.read32(driver::kFaultStatus) & driver::kFaultOverflow, 0u);

    const std::vector<Fault> faults = rig.driver.take_faults();
    ASSERT_EQ(faults.size(), records);
    for (unsigned i = 0; i < records; i++) {
        EXPECT_EQ(faults[i].address, kIova + i * kPageSize);
    }
    EXPECT_EQ(rig.driver.read32(driver::kFaultStatus) & driver::kFaultOverflow, 0u);
    // And it records again.
    EXPECT_EQ(rig.probe.store(kIova, 1), DmaResult::fault);
    EXPECT_EQ(rig.driver.take_faults().size(), 1u);
}

TEST_P(Faults, EventInterruptArrivesOnceUntilServiced) {
    constexpr unsigned kVector = 0x51;
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    rig.driver.write32(driver::kFaultEventData, kVector);
    rig.driver.write32(driver::kFaultEventAddress, 0xfee0'0000);
    rig.driver.write32(driver::kFaultEventUpperAddress, 0);
    rig.driver.write32(driver::kFaultEventControl, 0);

    EXPECT_TRUE(rig.machine.pending_vectors().empty());
    EXPECT_EQ(rig.probe.store(kIova, 1), DmaResult::fault);
    EXPECT_EQ(rig.machine.pending_vectors(), std::vector<unsigned>{kVector});
    EXPECT_EQ(rig.driver.read32(driver::kFaultEventControl) & driver::kEventPending, 0u);
}

TEST_P(Faults, MaskedEventIsSentWhenUnmasked) {
    constexpr unsigned kVector = 0x52;
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    rig.driver.write32(driver::kFaultEventControl, driver::kEventMask);
    rig.driver.write32(driver::kFaultEventData, kVector);
    rig.driver.write32(driver::kFaultEventAddress, 0xfee0'0000);

    EXPECT_EQ(rig.probe.store(kIova, 1), DmaResult::fault);
    EXPECT_TRUE(rig.machine.pending_vectors().empty());
    EXPECT_NE(rig.driver.read32(driver::kFaultEventControl) & driver::kEventPending, 0u);
    rig.driver.write32(driver::kFaultEventControl, 0);
    EXPECT_EQ(rig.machine.pending_vectors(), std::vector<unsigned>{kVector});
    EXPECT_EQ(rig.driver.read32(driver::kFaultEventControl) & driver::kEventPending, 0u);
}

TEST_P(Faults, PendingEventIsDroppedWhenTheFaultIsServiced) {
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    rig.driver.write32(driver::kFaultEventControl, driver::kEventMask);
    rig.driver.write32(driver::kFaultEventData, 0x53);
    rig.driver.write32(driver::kFaultEventAddress, 0xfee0'0000);

    EXPECT_EQ(rig.probe.store(kIova, 1), DmaResult::fault);
    EXPECT_EQ(rig.driver.take_faults().size(), 1u);
    EXPECT_EQ(rig.driver.read32(driver::kFaultEventControl) & driver::kEventPending, 0u);
    rig.driver.write32(driver::kFaultEventControl, 0);
    EXPECT_TRUE(rig.machine.pending_vectors().empty());
}

}  // namespace
}  // namespace umbra::qtest
