// SPDX-License-Identifier: GPL-2.0-or-later
//
// Commands through registers: GCMD, and invalidation by CCMD and IOTLB.
#include <gtest/gtest.h>

#include <cstdint>

#include "tests/unit/vtd/unit_fixture.h"

namespace umbra::vtd::testing {
namespace {

constexpr std::uint64_t kIcc = std::uint64_t{1} << 63;
constexpr std::uint64_t kIvt = std::uint64_t{1} << 63;

class RegisterCommands : public UnitFixture {
  protected:
    [[nodiscard]] std::uint32_t iva_offset() const {
        return static_cast<std::uint32_t>((read64(kEcap) >> 8 & 0x3ff) * 16);
    }
    [[nodiscard]] std::uint32_t iotlb_offset() const { return iva_offset() + 8; }

    static constexpr std::uint64_t context_request(std::uint64_t granularity) {
        return kIcc | granularity << 61;
    }
    static constexpr std::uint64_t iotlb_request(std::uint64_t granularity,
                                                 std::uint64_t domain = 0) {
        return kIvt | granularity << 60 | domain << 32;
    }
    [[nodiscard]] unsigned context_actual() const {
        return static_cast<unsigned>(read64(kCcmd) >> 59 & 3);
    }
    [[nodiscard]] unsigned iotlb_actual() const {
        return static_cast<unsigned>(read64(iotlb_offset()) >> 57 & 3);
    }
    [[nodiscard]] std::uint64_t done(InvalidationKind kind) const {
        return unit->counters().invalidation(kind, InvalidationPath::registers).value();
    }
};

TEST_F(RegisterCommands, ContextCommands) {
    write64(kCcmd, context_request(1));
    EXPECT_EQ(read64(kCcmd) & kIcc, 0U);
    EXPECT_EQ(context_actual(), 1U);
    write64(kCcmd, context_request(2) | 0x1234);
    EXPECT_EQ(context_actual(), 2U);
    write64(kCcmd, context_request(3) | 0x42 | 0x0567ULL << 16 | 1ULL << 32);
    EXPECT_EQ(context_actual(), 3U);
    const Journal expected = {"begin",   "context_global",
                              "barrier", "end",
                              "begin",   "context_domain 0x1234",
                              "barrier", "end",
                              "begin",   "context_device 0x42 0x567 0x1",
                              "barrier", "end"};
    EXPECT_EQ(journal, expected);
    EXPECT_EQ(done(InvalidationKind::context_global), 1U);
    EXPECT_EQ(done(InvalidationKind::context_domain), 1U);
    EXPECT_EQ(done(InvalidationKind::context_device), 1U);
}

TEST_F(RegisterCommands, ContextCommandByHalves) {
    const std::uint64_t command = context_request(3) | 0x42 | 0x0567ULL << 16;
    write32(kCcmd, static_cast<std::uint32_t>(command));
    EXPECT_TRUE(journal.empty()) << "ICC is in the upper half";
    write32(kCcmd + 4, static_cast<std::uint32_t>(command >> 32));
    const Journal expected = {"begin", "context_device 0x42 0x567 0x0", "barrier", "end"};
    EXPECT_EQ(journal, expected);
}

TEST_F(RegisterCommands, ReservedContextGranularityIsRefused) {
    write64(kCcmd, context_request(1));
    journal.clear();
    write64(kCcmd, context_request(0));
    EXPECT_EQ(read64(kCcmd) & kIcc, 0U) << "software does not wait for ever";
    EXPECT_EQ(context_actual(), 0U);
    EXPECT_TRUE(journal.empty());
    EXPECT_EQ(unit->counters().register_commands_refused.value(), 1U);
}

// Interrupt remapping alone: software sees no address width, and cannot switch translation on.
TEST_F(RegisterCommands, TranslationOfAUnitThatHasNone) {
    start_translation();
    const SavedState translating = unit->save();
    unit = std::make_unique<Unit>(
        UnitProperties{.dma_translation = false},
        Unit::Ports{.memory = memory, .messages = messages, .observer = &observer});
    EXPECT_EQ(read64(kCap) >> 8 & 0x1f, 0U);
    command(kSrtp);
    command(kTe);
    EXPECT_EQ(read32(kGsts) & (kTe | kSrtp), kSrtp);
    EXPECT_FALSE(unit->translation_enabled());
    EXPECT_FALSE(unit->restore(translating));
    EXPECT_FALSE(unit->translation_enabled());
    start_remapping();
    EXPECT_EQ(read32(kGsts) & kIre, kIre);
}

TEST_F(RegisterCommands, WithoutTheCommandBitNothingHappens) {
    write64(kCcmd, context_request(1) & ~kIcc);
    write64(iotlb_offset(), iotlb_request(1) & ~kIvt);
    EXPECT_TRUE(journal.empty());
}

TEST_F(RegisterCommands, IotlbCommands) {
    write64(iotlb_offset(), iotlb_request(1));
    EXPECT_EQ(read64(iotlb_offset()) & kIvt, 0U);
    EXPECT_EQ(iotlb_actual(), 1U);
    write64(iotlb_offset(), iotlb_request(2, 0x4321) | 3ULL << 48);
    EXPECT_EQ(iotlb_actual(), 2U);
    write64(iva_offset(), 0x12345000 | 1 << 6 | 2);
    write64(iotlb_offset(), iotlb_request(3, 0x17));
    EXPECT_EQ(iotlb_actual(), 3U);
    const Journal expected = {"begin",   "iotlb_global",
                              "barrier", "end",
                              "begin",   "iotlb_domain 0x4321",
                              "barrier", "end",
                              "begin",   "iotlb_pages 0x17 0x12344000 0x2 leaf_only",
                              "barrier", "end"};
    EXPECT_EQ(journal, expected);
    EXPECT_EQ(done(InvalidationKind::iotlb_global), 1U);
    EXPECT_EQ(done(InvalidationKind::iotlb_domain), 1U);
    EXPECT_EQ(done(InvalidationKind::iotlb_page), 1U);
}

TEST_F(RegisterCommands, IotlbCommandByHalves) {
    write32(iva_offset(), 0x5000);
    write32(iva_offset() + 4, 0x7);
    write32(iotlb_offset(), 0);
    write32(iotlb_offset() + 4, static_cast<std::uint32_t>(iotlb_request(3, 0x9) >> 32));
    const Journal expected = {"begin", "iotlb_pages 0x9 0x700005000 0x0", "barrier", "end"};
    EXPECT_EQ(journal, expected);
}

TEST_F(RegisterCommands, BadIotlbCommandsAreRefused) {
    write64(iotlb_offset(), iotlb_request(1));
    journal.clear();
    write64(iotlb_offset(), iotlb_request(0));
    EXPECT_EQ(read64(iotlb_offset()) & kIvt, 0U);
    EXPECT_EQ(iotlb_actual(), 0U);
    write64(iotlb_offset(), iotlb_request(1));
    journal.clear();
    write64(iva_offset(), 0x5000 | 19);
    write64(iotlb_offset(), iotlb_request(3, 1));
    EXPECT_EQ(iotlb_actual(), 0U) << "address mask beyond MAMV";
    EXPECT_TRUE(journal.empty());
    EXPECT_EQ(unit->counters().register_commands_refused.value(), 2U);
}

TEST_F(RegisterCommands, RefusedWhileTheQueueIsOn) {
    start_queue();
    write64(kCcmd, context_request(1));
    EXPECT_EQ(read64(kCcmd) & kIcc, 0U);
    EXPECT_EQ(context_actual(), 0U);
    write64(iotlb_offset(), iotlb_request(1));
    EXPECT_EQ(iotlb_actual(), 0U);
    EXPECT_TRUE(journal.empty());
    EXPECT_EQ(unit->counters().register_commands_refused.value(), 2U);
}

TEST_F(RegisterCommands, IotlbCommandDropsWhatItCovers) {
    const Gpa table = new_page();
    set_context(0x0010, 0x17, table);
    map(table, 0x5000, 0x9000);
    map(table, 0x6000, 0xa000);
    start_translation();
    const SourceId device(0x0010);
    ASSERT_TRUE(unit->translate(device, Iova(0x5000), Access::read).ok);
    ASSERT_TRUE(unit->translate(device, Iova(0x6000), Access::read).ok);
    unmap(table, 0x5000);
    unmap(table, 0x6000);
    write64(iva_offset(), 0x5000);
    write64(iotlb_offset(), iotlb_request(3, 0x17));
    EXPECT_FALSE(unit->translate(device, Iova(0x5000), Access::read).ok);
    EXPECT_TRUE(unit->translate(device, Iova(0x6000), Access::read).ok);
    write64(iotlb_offset(), iotlb_request(2, 0x18));
    EXPECT_TRUE(unit->translate(device, Iova(0x6000), Access::read).ok) << "another domain";
    write64(iotlb_offset(), iotlb_request(2, 0x17));
    EXPECT_FALSE(unit->translate(device, Iova(0x6000), Access::read).ok);
}

TEST_F(RegisterCommands, GlobalCommandsShowInTheStatus) {
    EXPECT_EQ(read32(kGsts), 0U);
    for (const std::uint32_t bit : {kSrtp, kSirtp, kQie, kTe, kIre, kCfi}) {
        command(bit);
        EXPECT_EQ(read32(kGsts) & bit, bit) << std::hex << bit;
    }
    EXPECT_EQ(read32(kGsts), kSrtp | kSirtp | kQie | kTe | kIre | kCfi);
    for (const std::uint32_t bit : {kTe, kIre, kCfi, kQie}) {
        command_off(bit);
        EXPECT_EQ(read32(kGsts) & bit, 0U) << std::hex << bit;
    }
    EXPECT_EQ(read32(kGsts), kSrtp | kSirtp) << "the pointers stay set";
    EXPECT_EQ(read32(kGcmd), 0U);
}

TEST_F(RegisterCommands, CommandsOfAbsentFunctionsDoNothing) {
    UnitProperties properties;
    properties.interrupt_remapping = false;
    build(properties);
    // IRE, SIRTP, CFI; and SFL, EAFL, WBF, which no unit has; and the reserved bits.
    write32(kGcmd, ~(kTe | kSrtp | kQie));
    EXPECT_EQ(read32(kGsts), 0U);
    EXPECT_FALSE(unit->interrupt_remapping_enabled());
    EXPECT_TRUE(journal.empty());
}

TEST_F(RegisterCommands, ObserverLearnsOfTranslationAndRemapping) {
    write64(kRtaddr, kRootTable.value());
    command(kSrtp);
    EXPECT_TRUE(journal.empty()) << "translation is off, so a root table changes nothing";
    command(kTe);
    const Journal on = {"begin", "translation on", "barrier", "end"};
    EXPECT_EQ(journal, on);
    journal.clear();
    command(kSrtp);
    EXPECT_EQ(journal, on) << "a new root table in use";
    journal.clear();
    command_off(kTe);
    const Journal off = {"begin", "translation off", "barrier", "end"};
    EXPECT_EQ(journal, off);
    journal.clear();
    command(kSirtp);
    EXPECT_EQ(journal, (Journal{"begin", "remapping off", "barrier", "end"}));
    journal.clear();
    command(kIre);
    EXPECT_EQ(journal, (Journal{"begin", "remapping on", "barrier", "end"}));
    journal.clear();
    command(kCfi);
    EXPECT_EQ(journal, (Journal{"begin", "remapping on", "barrier", "end"}));
    journal.clear();
    command(kCfi);
    EXPECT_TRUE(journal.empty()) << "no change";
}

TEST_F(RegisterCommands, RootTableIsInForceOnlyWhenLatched) {
    const Gpa table = new_page();
    set_context(0x0010, 1, table);
    map(table, 0x5000, 0x9000);
    start_translation();
    write64(kRtaddr, 0x3000);
    EXPECT_TRUE(unit->translate(SourceId(0x0010), Iova(0x5000), Access::read).ok);
    EXPECT_TRUE(unit->context_of(SourceId(0x0010)).present);
    command(kSrtp);
    EXPECT_FALSE(unit->context_of(SourceId(0x0010)).present);
    EXPECT_FALSE(unit->translate(SourceId(0x0010), Iova(0x5000), Access::read).ok)
        << "ESRTPS: the command drops what was cached from the old table";
}

TEST_F(RegisterCommands, AllCommandsAtOnceUseTheNewPointers) {
    const Gpa table = new_page();
    set_context(0x0010, 1, table);
    map(table, 0x5000, 0x9000);
    write64(kRtaddr, kRootTable.value());
    write32(kGcmd, kSrtp | kTe);
    EXPECT_TRUE(unit->translate(SourceId(0x0010), Iova(0x5000), Access::read).ok);
}

}  // namespace
}  // namespace umbra::vtd::testing
