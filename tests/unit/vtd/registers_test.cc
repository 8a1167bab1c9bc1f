// SPDX-License-Identifier: GPL-2.0-or-later
//
// Every bit of the register space is written with 1 and with 0, from both values, and must behave
// as its access kind says. The table of kinds below was written from the specification, not from
// the code.
#include "plugin/vtd/registers.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "tests/unit/vtd/unit_fixture.h"

namespace umbra::vtd::testing {
namespace {

struct Expected {
    std::uint32_t offset;
    unsigned bytes;
    std::uint64_t reset;
    std::uint64_t read_write;
    std::uint64_t write_one_clear;
    std::uint64_t write_only;
};

// For a unit with 48-bit guest-physical addresses.
std::vector<Expected> expected_registers(bool remapping, bool extended_mode, bool device_tlb) {
    constexpr std::uint64_t kAddress48 = 0x0000'ffff'ffff'f000;
    const std::uint64_t command = remapping ? 0xc780'0000 : 0xc400'0000;
    std::vector<Expected> table = {
        {0x000, 4, 0x10, 0, 0, 0},
        {0x018, 4, 0, 0, 0, command},                                    // GCMD
        {0x01c, 4, 0, 0, 0, 0},                                          // GSTS
        {0x020, 8, 0, kAddress48, 0, 0},                                 // RTADDR
        {0x028, 8, 0, 0xe000'0000'0000'ffff, 0, 0x0000'0003'ffff'0000},  // CCMD
        {0x034, 4, 0, 0, device_tlb ? 0x71U : 0x11U, 0},                 // FSTS
        {0x038, 4, 0x8000'0000, 0x8000'0000, 0, 0},                      // FECTL
        {0x03c, 4, 0, 0xffff'ffff, 0, 0},                                // FEDATA
        {0x040, 4, 0, 0xffff'fffc, 0, 0},                                // FEADDR
        {0x044, 4, 0, 0xffff'ffff, 0, 0},                                // FEUADDR
        {0x064, 4, 0, 0, 0, 0},                                          // PMEN
        {0x080, 8, 0, 0, 0, 0},                                          // IQH
        {0x088, 8, 0, 0x7fff0, 0, 0},                                    // IQT
        {0x090, 8, 0, kAddress48 | 7, 0, 0},                             // IQA
        {0x09c, 4, 0, 0, 0x1, 0},                                        // ICS
        {0x0a0, 4, 0x8000'0000, 0x8000'0000, 0, 0},                      // IECTL
        {0x0a4, 4, 0, 0xffff'ffff, 0, 0},                                // IEDATA
        {0x0a8, 4, 0, 0xffff'fffc, 0, 0},                                // IEADDR
        {0x0ac, 4, 0, 0xffff'ffff, 0, 0},                                // IEUADDR
        {0x0b8, 8, 0, remapping ? kAddress48 | 0xf | (extended_mode ? 0x800 : 0) : 0, 0,
         0},                                         // IRTA
        {0x0f0, 8, 0, 0, 0, 0xffff'ffff'ffff'f07f},  // IVA
        {0x0f8, 8, 0, 0xb003'ffff'0000'0000, 0, 0},  // IOTLB
    };
    for (std::uint32_t i = 0; i < 8; ++i) {
        table.push_back({0x220 + 16 * i, 8, 0, 0, 0, 0});
        table.push_back({0x228 + 16 * i, 8, 0, 0, std::uint64_t{1} << 63, 0});
    }
    return table;
}

struct Word {
    bool constant_unknown = false;  // CAP and ECAP: constant, value is another test's business
    std::uint32_t reset = 0;
    std::uint32_t read_write = 0;
    std::uint32_t write_one_clear = 0;
    std::uint32_t write_only = 0;
};

Word expected_word(const std::vector<Expected>& table, std::uint32_t offset) {
    for (const Expected& row : table) {
        if (offset >= row.offset && offset < row.offset + row.bytes) {
            const unsigned shift = (offset - row.offset) * 8;
            const auto half = [shift](std::uint64_t value) {
                return static_cast<std::uint32_t>(value >> shift);
            };
            return {false, half(row.reset), half(row.read_write), half(row.write_one_clear),
                    half(row.write_only)};
        }
    }
    Word word;
    word.constant_unknown = offset >= 0x08 && offset < 0x18;
    return word;
}

class RegisterAccess : public ::testing::TestWithParam<UnitProperties> {
  protected:
    Capabilities capabilities_ = capabilities_of(GetParam());
    RegisterFile registers_{capabilities_};
    std::vector<Expected> table_ =
        expected_registers(GetParam().interrupt_remapping, GetParam().extended_interrupt_mode,
                           GetParam().device_iotlb);
};

TEST_P(RegisterAccess, EveryBitFollowsItsKind) {
    for (std::uint32_t offset = 0; offset < kRegisterSpace; offset += 4) {
        const Word word = expected_word(table_, offset);
        for (unsigned bit = 0; bit < 32; ++bit) {
            SCOPED_TRACE(::testing::Message()
                         << std::hex << "offset " << offset << std::dec << " bit " << bit);
            const std::uint32_t mask = 1u << bit;
            const bool in_file = offset < SavedState::kRegisterBytes;
            for (const std::uint32_t before : {0u, mask}) {
                registers_.reset();
                const auto at_reset =
                    static_cast<std::uint32_t>(registers_.software_read(offset, 4));
                if (!word.constant_unknown) {
                    ASSERT_EQ(at_reset & mask, word.reset & mask);
                }
                const bool constant = word.constant_unknown || !in_file;
                if (!constant) {
                    registers_.set32(offset, (registers_.get32(offset) & ~mask) | before);
                }
                const std::uint32_t held = constant ? at_reset & mask : before;

                registers_.software_write(offset, mask, 4);
                const auto after_one =
                    static_cast<std::uint32_t>(registers_.software_read(offset, 4)) & mask;
                registers_.software_write(offset, 0, 4);
                const auto after_zero =
                    static_cast<std::uint32_t>(registers_.software_read(offset, 4)) & mask;

                if ((word.read_write & mask) != 0) {
                    EXPECT_EQ(after_one, mask);
                    EXPECT_EQ(after_zero, 0U);
                } else if ((word.write_one_clear & mask) != 0) {
                    EXPECT_EQ(after_one, 0U);
                    EXPECT_EQ(after_zero, 0U);
                } else if ((word.write_only & mask) != 0) {
                    EXPECT_EQ(after_one, 0U);
                    EXPECT_EQ(after_zero, 0U);
                } else {
                    EXPECT_EQ(after_one, held);
                    EXPECT_EQ(after_zero, held);
                }
            }
        }
    }
}

TEST_P(RegisterAccess, WritingZeroKeepsWriteOneClearBits) {
    for (const Expected& row : table_) {
        for (unsigned half = 0; half < row.bytes / 4; ++half) {
            const std::uint32_t offset = row.offset + 4 * half;
            const auto mask = static_cast<std::uint32_t>(row.write_one_clear >> (32 * half));
            registers_.reset();
            registers_.set32(offset, mask);
            registers_.software_write(offset, 0, 4);
            EXPECT_EQ(registers_.software_read(offset, 4) & mask, mask) << std::hex << offset;
        }
    }
}

TEST_P(RegisterAccess, WriteOnlyBitsAreStoredForTheUnit) {
    for (const Expected& row : table_) {
        registers_.reset();
        registers_.software_write(row.offset, ~std::uint64_t{0}, row.bytes);
        const std::uint64_t stored =
            row.bytes == 8 ? registers_.get64(row.offset) : registers_.get32(row.offset);
        EXPECT_EQ(stored & row.write_only, row.write_only) << std::hex << row.offset;
    }
}

TEST_P(RegisterAccess, HalvesAndWholeAgree) {
    constexpr std::uint64_t kPattern = 0xa5c3'96e7'5a3c'697f;
    for (const Expected& row : table_) {
        EXPECT_EQ(registers_.is_wide(row.offset), row.bytes == 8) << std::hex << row.offset;
        if (row.bytes != 8) {
            continue;
        }
        registers_.reset();
        registers_.software_write(row.offset, kPattern, 8);
        const std::uint64_t whole = registers_.software_read(row.offset, 8);
        EXPECT_EQ(whole, (row.reset & ~row.read_write) | (kPattern & row.read_write));
        EXPECT_EQ(registers_.software_read(row.offset, 4), whole & 0xffff'ffff);
        EXPECT_EQ(registers_.software_read(row.offset + 4, 4), whole >> 32);

        registers_.reset();
        registers_.software_write(row.offset + 4, kPattern >> 32, 4);
        EXPECT_EQ(registers_.software_read(row.offset, 8), whole & 0xffff'ffff'0000'0000)
            << std::hex << row.offset;
        registers_.software_write(row.offset, kPattern & 0xffff'ffff, 4);
        EXPECT_EQ(registers_.software_read(row.offset, 8), whole) << std::hex << row.offset;
    }
}

UnitProperties without_remapping() {
    UnitProperties properties;
    properties.interrupt_remapping = false;
    return properties;
}

UnitProperties with_everything() {
    UnitProperties properties;
    properties.extended_interrupt_mode = true;
    properties.device_iotlb = true;
    return properties;
}

INSTANTIATE_TEST_SUITE_P(Properties, RegisterAccess,
                         ::testing::Values(UnitProperties(), without_remapping(),
                                           with_everything()));

using RegisterWidths = UnitFixture;

TEST_F(RegisterWidths, OnlyAlignedAccessesOfFourAndEightBytesDoAnything) {
    for (const unsigned size : {0U, 1U, 2U, 3U, 5U, 6U, 7U, 16U}) {
        EXPECT_EQ(unit->mmio_read(kFedata, size), 0U) << size;
        unit->mmio_write(kFedata, 0xffff'ffff, size);
        EXPECT_EQ(read32(kFedata), 0U) << size;
    }
    for (const std::uint32_t offset : {kCap + 1, kCap + 2, kCap + 3}) {
        EXPECT_EQ(unit->mmio_read(offset, 4), 0U);
    }
    // Eight bytes from the upper half of CAP on.
    EXPECT_EQ(unit->mmio_read(kCap + 4, 8), 0U);
    unit->mmio_write(kRtaddr + 4, ~std::uint64_t{0}, 8);
    EXPECT_EQ(read64(kRtaddr), 0U);
    EXPECT_EQ(read64(kCcmd), 0U);
}

TEST_F(RegisterWidths, EightBytesReachBothOfAPairOfRegisters) {
    write64(kFeaddr, 0x1234'5678'9abc'def0);
    EXPECT_EQ(read32(kFeaddr), 0x9abc'def0U);
    EXPECT_EQ(read32(kFeuaddr), 0x1234'5678U);
    EXPECT_EQ(read64(kFeaddr), 0x1234'5678'9abc'def0U);
    // FECTL and FEDATA: the control bit and the data register each follow their own rules.
    write64(kFectl, 0x0000'00ff'0000'0000);
    EXPECT_EQ(read32(kFectl), 0U);
    EXPECT_EQ(read32(kFedata), 0xffU);
}

TEST_F(RegisterWidths, EndOfTheRegisterSpaceIsQuiet) {
    for (const std::uint32_t offset : {SavedState::kRegisterBytes - 4, SavedState::kRegisterBytes,
                                       kRegisterSpace - 8, kRegisterSpace, 0xffff'fff8U}) {
        write64(offset & ~7U, ~std::uint64_t{0});
        write32(offset, 0xffff'ffff);
        EXPECT_EQ(read32(offset), 0U);
        EXPECT_EQ(read64(offset & ~7U), 0U);
    }
}

}  // namespace
}  // namespace umbra::vtd::testing
