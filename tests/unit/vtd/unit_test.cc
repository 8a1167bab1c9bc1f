// SPDX-License-Identifier: GPL-2.0-or-later
//
// DMA and interrupts through the unit: what the caches keep and for how long, what is logged, and
// that no guest can do harm. Walks and tables by themselves have tests of their own.
#include "plugin/vtd/unit.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>

#include "tests/unit/vtd/unit_fixture.h"

namespace umbra::vtd::testing {
namespace {

class UnitTest : public UnitFixture {
  protected:
    static constexpr SourceId kDevice{0x0010};
    static constexpr std::uint16_t kDomain = 7;

    // kDevice in kDomain with an empty table; translation and queue on.
    void start() {
        table_ = new_page();
        set_context(kDevice.value(), kDomain, table_);
        start_translation();
        start_queue();
    }
    [[nodiscard]] bool translates(std::uint64_t iova, Access wanted = Access::read,
                                  SourceId device = kDevice) {
        return unit->translate(device, Iova(iova), wanted).ok;
    }
    [[nodiscard]] const DomainCounters& domain() const {
        return domain_counters(DomainId{kDomain});
    }

    Gpa table_;
};

TEST_F(UnitTest, AddressesPassUnchangedWhileTranslationIsOff) {
    const Translation translation =
        unit->translate(kDevice, Iova(0xffff'ffff'ffff'f123), Access::write);
    EXPECT_TRUE(translation.ok);
    EXPECT_EQ(translation.address, Gpa(0xffff'ffff'ffff'f123));
    EXPECT_EQ(translation.granted, Access::read_write);
    EXPECT_EQ(translation.page_mask & (translation.page_mask + 1), 0U);
    EXPECT_TRUE(unit->context_of(kDevice).translation_off);
    EXPECT_TRUE(unit->lookup(kDevice, Iova(0x1000)).ok);
    EXPECT_FALSE(unit->translation_enabled());
}

TEST_F(UnitTest, TranslatesPagesOfEverySize) {
    start();
    map(table_, 0x1234'5000, 0x9000, 1);
    map(table_, 0x4000'0000, 0x20'0000, 2);
    map(table_, 0x80'0000'0000, 0x4000'0000, 3, 1);
    for (const bool cached : {false, true}) {
        SCOPED_TRACE(cached);
        Translation translation = unit->translate(kDevice, Iova(0x1234'5678), Access::read_write);
        ASSERT_TRUE(translation.ok);
        EXPECT_EQ(translation.address, Gpa(0x9678));
        EXPECT_EQ(translation.page_mask, 0xfffU);
        EXPECT_EQ(translation.granted, Access::read_write);
        EXPECT_EQ(translation.domain, DomainId{kDomain});
        translation = unit->translate(kDevice, Iova(0x401a'bcde), Access::read);
        ASSERT_TRUE(translation.ok);
        EXPECT_EQ(translation.address, Gpa(0x3a'bcde));
        EXPECT_EQ(translation.page_mask, 0x1f'ffffU);
        translation = unit->translate(kDevice, Iova(0x80'1234'5678), Access::read);
        ASSERT_TRUE(translation.ok);
        EXPECT_EQ(translation.address, Gpa(0x5234'5678));
        EXPECT_EQ(translation.page_mask, 0x3fff'ffffU);
        EXPECT_EQ(translation.granted, Access::read);
    }
    EXPECT_EQ(domain().iotlb_misses.value(), 3U);
    EXPECT_EQ(domain().iotlb_hits.value(), 3U);
    EXPECT_EQ(unit->counters().iotlb_hits(), 3U);
}

TEST_F(UnitTest, DenialIsLoggedWithItsReason) {
    start();
    map(table_, 0x1000, 0x9000, 1, 1);
    EXPECT_TRUE(translates(0x1000, Access::read));
    EXPECT_FALSE(translates(0x1000, Access::write));
    EXPECT_EQ(reason(record(0)), 5U);
    EXPECT_FALSE(translates(0x2000, Access::read));
    EXPECT_EQ(reason(record(1)), 6U);
    EXPECT_FALSE(translates(0x1'0000'0000'0000, Access::read));
    EXPECT_EQ(reason(record(2)), 4U);
    EXPECT_EQ(record(2).low, 0x1'0000'0000'0000U);
    EXPECT_FALSE(translates(0x1000, Access::read_write));
    EXPECT_EQ(reason(record(3)), 5U);
    EXPECT_EQ(record(3).high >> 62 & 1, 0U) << "the write was what it lacked";
    EXPECT_EQ(domain().faults.value(), 4U);
}

TEST_F(UnitTest, ZeroLengthReadNeedsReadPermission) {
    start();
    map(table_, 0x1000, 0x9000, 1, 1);
    map(table_, 0x2000, 0xa000, 1, 2);
    EXPECT_TRUE(translates(0x1000, Access::none));
    EXPECT_FALSE(translates(0x2000, Access::none)) << "CAP.ZLR is 0";
    EXPECT_EQ(reason(record(0)), 6U);
    EXPECT_EQ(record(0).high >> 62 & 1, 1U);
}

TEST_F(UnitTest, PermissionAddedLaterIsFoundDespiteACachedEntry) {
    start();
    map(table_, 0x1000, 0x9000, 1, 1);
    EXPECT_TRUE(translates(0x1000, Access::read));
    map(table_, 0x1000, 0x9000, 1, 3);
    EXPECT_TRUE(translates(0x1000, Access::write)) << "a cached denial must be walked again";
}

TEST_F(UnitTest, StaleEntryLivesUntilAndOnlyUntilItIsInvalidated) {
    start();
    map(table_, 0x1000, 0x9000);
    map(table_, 0x2000, 0xa000);
    ASSERT_TRUE(translates(0x1000));
    ASSERT_TRUE(translates(0x2000));
    unmap(table_, 0x1000);
    unmap(table_, 0x2000);
    EXPECT_FALSE(unit->lookup(kDevice, Iova(0x1000)).ok) << "the tables as they are";
    EXPECT_TRUE(translates(0x1000));
    submit({iotlb_pages(kDomain, 0x3000), iotlb_pages(kDomain + 1, 0x1000),
            iotlb_domain(kDomain + 1), context_device(kDomain, kDevice.value())});
    EXPECT_TRUE(translates(0x1000)) << "none of these covers it";
    submit({iotlb_pages(kDomain, 0x1000)});
    EXPECT_FALSE(translates(0x1000));
    EXPECT_TRUE(translates(0x2000)) << "its neighbour was not named";
    submit({iotlb_domain(kDomain)});
    EXPECT_FALSE(translates(0x2000));
}

TEST_F(UnitTest, GlobalInvalidationReachesEveryDomain) {
    start();
    const Gpa other = new_page();
    set_context(0x0118, 99, other);
    map(table_, 0x1000, 0x9000);
    map(other, 0x1000, 0xb000);
    ASSERT_EQ(unit->translate(kDevice, Iova(0x1000), Access::read).address, Gpa(0x9000));
    ASSERT_EQ(unit->translate(SourceId(0x0118), Iova(0x1000), Access::read).address, Gpa(0xb000));
    unmap(table_, 0x1000);
    unmap(other, 0x1000);
    submit({iotlb_domain(99)});
    EXPECT_TRUE(translates(0x1000));
    EXPECT_FALSE(translates(0x1000, Access::read, SourceId(0x0118)));
    submit({iotlb_global()});
    EXPECT_FALSE(translates(0x1000));
}

TEST_F(UnitTest, ContextEntryLivesUntilItIsInvalidated) {
    start();
    const Gpa other = new_page();
    map(table_, 0x1000, 0x9000);
    map(other, 0x1000, 0xb000);
    ASSERT_EQ(unit->translate(kDevice, Iova(0x1000), Access::read).address, Gpa(0x9000));
    set_context(kDevice.value(), 8, other);
    EXPECT_EQ(unit->translate(kDevice, Iova(0x1000), Access::read).address, Gpa(0x9000));
    EXPECT_EQ(unit->context_of(kDevice).domain, DomainId{8}) << "the tables as they are";
    submit({context_device(kDomain, 0x0018), context_domain(8)});
    EXPECT_EQ(unit->translate(kDevice, Iova(0x1000), Access::read).address, Gpa(0x9000));
    submit({context_domain(kDomain)});
    EXPECT_EQ(unit->translate(kDevice, Iova(0x1000), Access::read).address, Gpa(0xb000));
    clear_context(kDevice.value());
    EXPECT_TRUE(translates(0x1000));
    submit({context_device(8, kDevice.value())});
    EXPECT_FALSE(translates(0x1000));
    EXPECT_EQ(reason(record(0)), 2U) << "context entry not present";
}

TEST_F(UnitTest, PassThroughDeviceIsLimitedByTheHostAddressWidth) {
    set_context(kDevice.value(), kDomain, Gpa(), 2 << 2);
    start_translation();
    const Translation translation = unit->translate(kDevice, Iova(0x1234'5678), Access::read_write);
    EXPECT_TRUE(translation.ok);
    EXPECT_EQ(translation.address, Gpa(0x1234'5678));
    EXPECT_EQ(translation.domain, DomainId{kDomain});
    EXPECT_TRUE(unit->lookup(kDevice, Iova(0x1234'5678)).ok);
    EXPECT_FALSE(translates(0x1'0000'0000'0000));
    EXPECT_EQ(reason(record(0)), 4U);
}

TEST_F(UnitTest, PassThroughIsAnErrorWithoutTheCapability) {
    UnitProperties properties;
    properties.pass_through = false;
    build(properties);
    set_context(kDevice.value(), kDomain, Gpa(), 2 << 2);
    start_translation();
    EXPECT_FALSE(translates(0x1000));
    EXPECT_EQ(reason(record(0)), 3U);
}

TEST_F(UnitTest, InterruptAddressesAreNoDma) {
    start();
    map(table_, 0xfee0'0000, 0x9000);
    EXPECT_FALSE(translates(0xfee0'0000, Access::write));
    EXPECT_FALSE(unit->lookup(kDevice, Iova(0xfeef'ffff)).ok);
    EXPECT_TRUE(is_fault(record(0)));
    EXPECT_EQ(record(0).low, 0U);
    EXPECT_FALSE(is_fault(record(1))) << "a look-up logs nothing";
}

TEST_F(UnitTest, NoAnswerReachesIntoTheInterruptRange) {
    start();
    // 1 GiB from 0xC000_0000 on, with the interrupt range in its middle.
    map(table_, 0xc000'0000, 0x1'0000'0000, 3);
    for (const bool cached : {false, true}) {
        SCOPED_TRACE(cached);
        for (const std::uint64_t iova : {0xfedf'ffffULL, 0xfef0'0000ULL, 0xc000'0000ULL}) {
            const Translation translation = unit->translate(kDevice, Iova(iova), Access::read);
            ASSERT_TRUE(translation.ok);
            EXPECT_EQ(translation.address.value(), iova + 0x4000'0000);
            const std::uint64_t first = iova & ~translation.page_mask;
            EXPECT_TRUE(first + translation.page_mask < 0xfee0'0000 || first > 0xfeef'ffff);
        }
    }
    const Translation elsewhere = unit->translate(kDevice, Iova(0x8000'0000), Access::read);
    EXPECT_FALSE(elsewhere.ok);
}

TEST_F(UnitTest, InterruptsPassWhileRemappingIsOff) {
    const InterruptResult result = unit->remap(kDevice, 0xfee0'1004, 0x4021);
    EXPECT_TRUE(result.ok);
    EXPECT_FALSE(result.remapped);
    EXPECT_FALSE(unit->interrupt_remapping_enabled());
}

TEST_F(UnitTest, InterruptsAreRemappedByTheLatchedTable) {
    // Entry 5: present, vector 0x31, destination 3 (bits 47:40 without EIM).
    memory.store(kInterruptTable + 0x50, Quads{1 | 0x31ULL << 16 | 3ULL << 40, 0});
    start_remapping();
    const std::uint64_t address = 0xfee0'0010 | 5 << 5;
    InterruptResult result = unit->remap(kDevice, address, 0);
    ASSERT_TRUE(result.ok);
    EXPECT_TRUE(result.remapped);
    EXPECT_EQ(result.vector, 0x31U);
    EXPECT_EQ(result.destination, 3U);
    // A new IRTA has no effect before SIRTP.
    write64(kIrta, 0x3000);
    EXPECT_TRUE(unit->remap(kDevice, address, 0).ok);
    command(kSirtp);
    EXPECT_FALSE(unit->lookup_interrupt(kDevice, address, 0).ok);
    EXPECT_EQ(read32(kFsts), 0U) << "a look-up logs nothing";
    result = unit->remap(kDevice, address, 0);
    EXPECT_FALSE(result.ok);
    EXPECT_EQ(result.reason, FaultReason::interrupt_index_beyond_table) << "two entries only";
    EXPECT_EQ(reason(record(0)), 0x21U);
    EXPECT_EQ(source(record(0)), kDevice.value());
    EXPECT_EQ(record(0).low, 5ULL << 48) << "the index";
}

TEST_F(UnitTest, CompatibilityInterruptsNeedPermission) {
    start_remapping();
    EXPECT_FALSE(unit->remap(kDevice, 0xfee0'1000, 0x41).ok);
    EXPECT_EQ(reason(record(0)), 0x25U);
    command(kCfi);
    EXPECT_TRUE(unit->remap(kDevice, 0xfee0'1000, 0x41).ok);
}

TEST_F(UnitTest, SuppressedInterruptFaultIsCountedNotLogged) {
    // Entry 5: not present, FPD.
    memory.store(kInterruptTable + 0x50, Quads{2, 0});
    start_remapping();
    EXPECT_FALSE(unit->remap(kDevice, 0xfee0'0010 | 5 << 5, 0).ok);
    EXPECT_EQ(read32(kFsts), 0U);
    EXPECT_EQ(unit->counters().faults.suppressed.value(), 1U);
}

TEST_F(UnitTest, ResetLeavesNothingStale) {
    start();
    map(table_, 0x1000, 0x9000);
    ASSERT_TRUE(translates(0x1000));
    unmask_fault_event();
    unmask_completion_event();
    start_remapping();
    submit({wait_interrupt(), Quads{0xf, 0}});
    EXPECT_FALSE(translates(0x2000));
    journal.clear();

    unit->reset();

    const Journal expected = {"begin", "translation off", "barrier", "end",
                              "begin", "remapping off",   "barrier", "end"};
    EXPECT_EQ(journal, expected);
    EXPECT_FALSE(unit->translation_enabled());
    EXPECT_FALSE(unit->interrupt_remapping_enabled());
    const auto fresh = std::make_unique<Unit>(UnitProperties(),
                                              Unit::Ports{.memory = memory, .messages = messages});
    for (std::uint32_t offset = 0; offset < kRegisterSpace; offset += 4) {
        EXPECT_EQ(read32(offset), fresh->mmio_read(offset, 4)) << std::hex << offset;
    }
    // The old table is gone with the caches: the same root with the entry removed.
    unmap(table_, 0x1000);
    start_translation();
    EXPECT_FALSE(translates(0x1000));
    EXPECT_EQ(reason(record(0)), 6U) << "the ring starts at its first register again";
}

TEST_F(UnitTest, CountersSurviveResetAndCanBeCleared) {
    start();
    EXPECT_FALSE(translates(0x1000));
    unit->reset();
    EXPECT_EQ(unit->counters().fault(FaultReason::read_denied).value(), 1U);
    unit->clear_counters();
    EXPECT_EQ(unit->counters().fault(FaultReason::read_denied).value(), 0U);
}

TEST_F(UnitTest, WorksWithoutAnObserver) {
    unit = std::make_unique<Unit>(UnitProperties(),
                                  Unit::Ports{.memory = memory, .messages = messages});
    start();
    map(table_, 0x1000, 0x9000);
    EXPECT_TRUE(translates(0x1000));
    submit({iotlb_global(), context_global(), Quads{0x04, 0}, wait_status(kStatus, 5)});
    EXPECT_EQ(memory.load<std::uint32_t>(kStatus), 5U);
    unit->reset();
    EXPECT_TRUE(journal.back().starts_with("memory")) << "the fixture's observer is not told";
}

TEST_F(UnitTest, RandomRegisterTrafficDoesNoHarm) {
    UnitProperties properties;
    properties.device_iotlb = true;
    properties.extended_interrupt_mode = true;
    build(properties);
    std::mt19937_64 random(7);
    for (unsigned round = 0; round < 200000; ++round) {
        const auto offset = static_cast<std::uint32_t>(random() % 0x300);
        const unsigned size = random() % 2 == 0 ? 4 : 8;
        // Addresses near the memory that exists, so that tables and queue are read in earnest.
        const std::uint64_t value =
            random() % 4 == 0 ? random() : random() % (2 * kMemoryBytes) | random() << 56;
        unit->mmio_write(offset & ~(size - 1), value, size);
        if (round % 16 == 0) {
            (void)unit->translate(SourceId(static_cast<std::uint16_t>(random())),
                                  Iova(random() >> (random() % 64)), Access::read);
            (void)unit->remap(SourceId(static_cast<std::uint16_t>(random())),
                              0xfee0'0000 | random() % 0x10'0000,
                              static_cast<std::uint32_t>(random()));
        }
        if (round % 64 == 0) {
            journal.clear();
            messages.sent.clear();
        }
    }
    EXPECT_EQ(read64(kCap), capabilities_of(properties).cap);
    unit->reset();
    EXPECT_EQ(read32(kGsts), 0U);
}

}  // namespace
}  // namespace umbra::vtd::testing
