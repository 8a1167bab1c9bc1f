// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/second_stage.h"

#include <gtest/gtest.h>

#include "plugin/vtd/interrupt_range.h"
#include "tests/unit/vtd_tables/flat_memory.h"

namespace umbra::vtd {
namespace {

using testing::FlatMemory;
using Kind = DecodedEntry::Kind;

constexpr std::uint64_t kR = 1;
constexpr std::uint64_t kW = 2;
constexpr std::uint64_t kRw = 3;
constexpr std::uint64_t kPageSizeBit = 1 << 7;
constexpr unsigned kHostAddressWidth = 46;

TEST(Levels, SplitAnIova) {
    EXPECT_EQ(level_span(1), 4096u);
    EXPECT_EQ(level_span(2), 2u << 20);
    EXPECT_EQ(level_span(3), 1u << 30);
    EXPECT_EQ(address_width(3), 39u);
    EXPECT_EQ(address_width(4), 48u);
    const Iova iova(0x123ull << 39 | 0x0abull << 30 | 0x1cdull << 21 | 0x0efull << 12 | 0x345);
    EXPECT_EQ(level_index(iova, 4), 0x123u);
    EXPECT_EQ(level_index(iova, 3), 0x0abu);
    EXPECT_EQ(level_index(iova, 2), 0x1cdu);
    EXPECT_EQ(level_index(iova, 1), 0x0efu);
}

// Reserved bits of a present entry, from the tables of specification 9.8, bit by bit.
bool is_reserved(unsigned level, bool leaf, bool snoop_control, unsigned bit) {
    if (bit == 62 || (bit >= kHostAddressWidth && bit <= 51)) {
        return true;
    }
    if (bit == 11) {
        return !leaf || !snoop_control;
    }
    if (level == 4 && bit == 7) {
        return true;
    }
    if (leaf && bit >= 12 && bit < 12 + 9 * (level - 1)) {
        return true;
    }
    return false;
}

TEST(EntryFormat, EveryBitOfEveryKindOfEntry) {
    for (const bool snoop_control : {false, true}) {
        const EntryFormat format(kHostAddressWidth, snoop_control);
        for (unsigned level = 1; level <= 4; ++level) {
            for (const bool large : {false, true}) {
                if (large && (level == 1 || level == 4)) {
                    continue;
                }
                const bool leaf = level == 1 || large;
                const std::uint64_t entry = kRw | (large ? kPageSizeBit : 0);
                for (unsigned bit = 2; bit < 64; ++bit) {
                    if (bit == 7 && (level == 2 || level == 3)) {
                        continue;  // chooses between table and leaf
                    }
                    SCOPED_TRACE(::testing::Message() << "level " << level << " bit " << bit);
                    const auto decoded = format.decode(level, entry | std::uint64_t{1} << bit);
                    if (is_reserved(level, leaf, snoop_control, bit)) {
                        EXPECT_EQ(decoded.kind, Kind::reserved);
                        EXPECT_EQ(decoded.access, Access::none);
                    } else {
                        EXPECT_EQ(decoded.kind, leaf ? Kind::leaf : Kind::table);
                        EXPECT_EQ(decoded.access, Access::read_write);
                        const bool in_address = bit >= 12 && bit <= 51;
                        EXPECT_EQ(decoded.address.value(),
                                  in_address ? std::uint64_t{1} << bit : 0);
                    }
                }
            }
        }
    }
}

TEST(EntryFormat, NothingCountsInAnAbsentEntry) {
    const EntryFormat format(kHostAddressWidth, false);
    for (unsigned level = 1; level <= 4; ++level) {
        EXPECT_EQ(format.decode(level, 0), DecodedEntry{});
        EXPECT_EQ(format.decode(level, ~kRw), DecodedEntry{});
    }
}

TEST(EntryFormat, ReadAndWriteAlone) {
    const EntryFormat format(kHostAddressWidth, false);
    EXPECT_EQ(format.decode(1, 0x5000 | kR), (DecodedEntry{Kind::leaf, Access::read, Gpa(0x5000)}));
    EXPECT_EQ(format.decode(3, 0x5000 | kW),
              (DecodedEntry{Kind::table, Access::write, Gpa(0x5000)}));
}

TEST(EntryFormat, HostAddressWidths) {
    for (unsigned width = 39; width <= 52; ++width) {
        const EntryFormat format(width, false);
        EXPECT_EQ(format.decode(1, std::uint64_t{1} << (width - 1) | kR).kind, Kind::leaf);
        if (width < 52) {
            EXPECT_EQ(format.decode(1, std::uint64_t{1} << width | kR).kind, Kind::reserved);
        }
    }
}

TEST(InterruptRange, HasItsEdges) {
    EXPECT_FALSE(is_interrupt_address(Iova(0xfedfffff)));
    EXPECT_TRUE(is_interrupt_address(Iova(0xfee00000)));
    EXPECT_TRUE(is_interrupt_address(Iova(0xfeefffff)));
    EXPECT_FALSE(is_interrupt_address(Iova(0xfef00000)));
    EXPECT_FALSE(is_interrupt_address(Iova(0x1fee00000)));
}

// A table at page `level` for each level, all indexed by 0 but for level 1, which is indexed by 5.
class SecondStageTest : public ::testing::Test {
  protected:
    SecondStageTest() {
        for (unsigned level = 4; level > 1; --level) {
            memory_.store(table(level), table(level - 1).value() | kRw);
        }
        memory_.store(leaf(), 0x123456000 | kRw);
    }
    static constexpr Gpa table(unsigned level) { return Gpa(level * kPageSize); }
    static constexpr Gpa leaf() { return table(1) + std::uint64_t{5} * 8; }

    [[nodiscard]] WalkResult walk(Iova iova, Access wanted, unsigned levels = 4) const {
        return SecondStage(memory_, format_, zero_length_reads_)
            .walk(table(levels), levels, iova, wanted);
    }
    void expect_fault(FaultReason reason, Access wanted = Access::read, Iova iova = kIova,
                      unsigned levels = 4) const {
        const auto result = walk(iova, wanted, levels);
        EXPECT_FALSE(result.ok);
        EXPECT_FALSE(result.cacheable);
        EXPECT_EQ(result.reason, reason);
    }

    static constexpr Iova kIova{0x5678};
    FlatMemory memory_{8};
    EntryFormat format_{kHostAddressWidth, false};
    bool zero_length_reads_ = true;
};

TEST_F(SecondStageTest, TranslatesThroughThreeAndFourLevels) {
    for (const unsigned levels : {3u, 4u}) {
        const auto result = walk(kIova, Access::read_write, levels);
        EXPECT_TRUE(result.ok);
        EXPECT_TRUE(result.cacheable);
        EXPECT_EQ(result.address, Gpa(0x123456678));
        EXPECT_EQ(result.page_mask, 0xfffu);
        EXPECT_EQ(result.granted, Access::read_write);
        EXPECT_EQ(result.level, 1u);
        EXPECT_EQ(result.reason, FaultReason::none);
    }
}

TEST_F(SecondStageTest, LargeLeaves) {
    memory_.store(table(2), 0x40200000 | kRw | kPageSizeBit);
    auto result = walk(Iova(0x1fedcb), Access::write);
    EXPECT_EQ(result.address, Gpa(0x403fedcb));
    EXPECT_EQ(result.page_mask, 0x1fffffu);
    EXPECT_EQ(result.level, 2u);

    memory_.store(table(3), 0x40000000 | kRw | kPageSizeBit);
    result = walk(Iova(0x3fedcba9), Access::write);
    EXPECT_EQ(result.address, Gpa(0x7fedcba9));
    EXPECT_EQ(result.page_mask, 0x3fffffffu);
    EXPECT_EQ(result.level, 3u);
}

TEST_F(SecondStageTest, AddressesBeyondTheWidth) {
    expect_fault(FaultReason::beyond_address_width, Access::read, Iova(1ull << 48), 4);
    expect_fault(FaultReason::beyond_address_width, Access::read, Iova(1ull << 63 | 0x5000), 4);
    expect_fault(FaultReason::beyond_address_width, Access::read, Iova(1ull << 39), 3);
    expect_fault(FaultReason::beyond_address_width, Access::read, Iova(1ull << 39 | 0x5000), 3);
    expect_fault(FaultReason::read_denied, Access::read, Iova((1ull << 48) - 1), 4);
    expect_fault(FaultReason::read_denied, Access::read, Iova((1ull << 39) - 1), 3);
}

TEST_F(SecondStageTest, TopLevelTableOutsideRam) {
    memory_.remove_page(table(4));
    expect_fault(FaultReason::invalid_context);
    EXPECT_TRUE(walk(kIova, Access::read, 3).ok);
}

TEST_F(SecondStageTest, LowerTablesOutsideRam) {
    memory_.remove_page(table(1));
    expect_fault(FaultReason::next_table_inaccessible);
    memory_.remove_page(table(2));
    expect_fault(FaultReason::next_table_inaccessible);
    memory_.remove_page(table(3));
    expect_fault(FaultReason::next_table_inaccessible);
    expect_fault(FaultReason::invalid_context, Access::read, kIova, 3);
}

TEST_F(SecondStageTest, AbsentEntriesDenyByWhatWasWanted) {
    for (unsigned level = 1; level <= 4; ++level) {
        const Gpa entry = level == 1 ? leaf() : table(level);
        const auto original = memory_.load(entry);
        memory_.store(entry, original & ~kRw);
        expect_fault(FaultReason::read_denied, Access::read);
        expect_fault(FaultReason::read_denied, Access::none);
        expect_fault(FaultReason::write_denied, Access::write);
        expect_fault(FaultReason::write_denied, Access::read_write);
        memory_.store(entry, original);
    }
}

TEST_F(SecondStageTest, ReservedBitsBlockAtEachLevel) {
    for (unsigned level = 1; level <= 4; ++level) {
        const Gpa entry = level == 1 ? leaf() : table(level);
        const auto original = memory_.load(entry);
        memory_.store(entry, original | 1ull << 62);
        expect_fault(FaultReason::entry_reserved, Access::read);
        expect_fault(FaultReason::entry_reserved, Access::write);
        memory_.store(entry, original);
    }
}

TEST_F(SecondStageTest, PermissionsAreThoseThatAllLevelsGrant) {
    // Every combination of R and W at every level, each entry present.
    for (unsigned combination = 0; combination < 81; ++combination) {
        unsigned rest = combination;
        std::uint64_t expected = kRw;
        for (unsigned level = 1; level <= 4; ++level) {
            const std::uint64_t access = rest % 3 + 1;
            rest /= 3;
            expected &= access;
            const Gpa entry = level == 1 ? leaf() : table(level);
            memory_.store(entry, (memory_.load(entry) & ~kRw) | access);
        }
        SCOPED_TRACE(combination);
        const auto granted = static_cast<Access>(expected);
        for (const auto wanted : {Access::read, Access::write, Access::read_write}) {
            const auto result = walk(kIova, wanted);
            EXPECT_EQ(result.ok, allows(granted, wanted));
            EXPECT_EQ(result.granted, granted);
            if (!result.ok) {
                const bool lacks_write = wanted != Access::read && (expected & kW) == 0;
                EXPECT_EQ(result.reason,
                          lacks_write ? FaultReason::write_denied : FaultReason::read_denied);
            }
        }
        const auto found = SecondStage(memory_, format_, true).find(table(4), 4, kIova);
        EXPECT_EQ(found.ok, granted != Access::none);
    }
}

TEST_F(SecondStageTest, ZeroLengthReads) {
    const std::uint64_t page = 0x9000;
    for (const bool supported : {false, true}) {
        zero_length_reads_ = supported;
        memory_.store(leaf(), page | kR);
        EXPECT_TRUE(walk(kIova, Access::none).ok);
        memory_.store(leaf(), page | kW);
        EXPECT_EQ(walk(kIova, Access::none).ok, supported);
        if (!supported) {
            expect_fault(FaultReason::read_denied, Access::none);
        }
        memory_.store(leaf(), page);
        expect_fault(FaultReason::read_denied, Access::none);
    }
}

TEST_F(SecondStageTest, OutputInTheInterruptRangeIsBlocked) {
    for (const std::uint64_t page : {0xfee00000ull, 0xfee80000ull, 0xfeeff000ull}) {
        memory_.store(leaf(), page | kRw);
        expect_fault(FaultReason::output_is_interrupt_address, Access::write);
    }
    for (const std::uint64_t page : {0xfedff000ull, 0xfef00000ull}) {
        memory_.store(leaf(), page | kRw);
        EXPECT_TRUE(walk(kIova, Access::write).cacheable);
    }
    memory_.store(leaf(), 0xfee00000 | kR);
    expect_fault(FaultReason::write_denied, Access::write);
}

TEST_F(SecondStageTest, LargeLeavesAroundTheInterruptRangeAreUsableInPieces) {
    memory_.store(table(3), 0xc0000000 | kRw | kPageSizeBit);
    expect_fault(FaultReason::output_is_interrupt_address, Access::read, Iova(0x3ee12345));
    for (const std::uint64_t iova : {0x0ull, 0x3edfffffull, 0x3ef00000ull}) {
        const auto result = walk(Iova(iova), Access::read);
        EXPECT_TRUE(result.ok);
        EXPECT_FALSE(result.cacheable);
        EXPECT_EQ(result.address, Gpa(0xc0000000 + iova));
        EXPECT_EQ(result.page_mask, 0xfffu);
    }
}

TEST_F(SecondStageTest, TablesThatReferToThemselvesEnd) {
    memory_.store(table(4), table(4).value() | kRw);
    const auto result = walk(Iova(0), Access::read);
    EXPECT_TRUE(result.ok);
    EXPECT_EQ(result.address, table(4));
    EXPECT_EQ(memory_.accesses(), 4u);
}

}  // namespace
}  // namespace umbra::vtd
