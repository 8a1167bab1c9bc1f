// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/interrupt_remapping.h"

#include <gtest/gtest.h>

#include "tests/unit/vtd_tables/flat_memory.h"

namespace umbra::vtd {
namespace {

using testing::FlatMemory;

constexpr std::uint64_t kRange = 0xfee00000;
constexpr std::uint64_t kRemappable = 1 << 4;
constexpr std::uint64_t kSubhandleValid = 1 << 3;
constexpr SourceId kDevice(0x12, 0x3b);

constexpr std::uint64_t kPresent = 1;
constexpr std::uint64_t kFpd = 2;

// A remappable message's address for `handle`.
constexpr std::uint64_t message(unsigned handle, bool subhandle_valid = false) {
    return kRange | kRemappable | std::uint64_t{handle & 0x7fff} << 5 |
           std::uint64_t{handle >> 15} << 2 | (subhandle_valid ? kSubhandleValid : 0);
}

class InterruptRemappingTest : public ::testing::Test {
  protected:
    // Vector 0x41 to APIC 0x23, fixed, physical, edge.
    static constexpr std::uint64_t kLow = 0x23ull << 40 | 0x41 << 16 | kPresent;
    static constexpr std::uint64_t kExtendedLow = 0x23ull << 32 | 0x41 << 16 | kPresent;

    void put(unsigned index, std::uint64_t low, std::uint64_t high = 0) {
        const Gpa entry = table_.address + std::uint64_t{index} * 16;
        memory_.store(entry, low);
        memory_.store(entry + 8, high);
    }
    [[nodiscard]] InterruptResult remap(std::uint64_t address, std::uint32_t data = 0,
                                        SourceId source = kDevice) const {
        return InterruptRemapper(memory_).remap(table_, source, address, data);
    }
    void expect_blocked(const InterruptResult& result, FaultReason reason, unsigned index,
                        bool fault_processing_disabled = false) const {
        EXPECT_FALSE(result.ok);
        EXPECT_EQ(result.reason, reason);
        EXPECT_EQ(result.index, index);
        EXPECT_EQ(result.fault_processing_disabled, fault_processing_disabled);
    }

    FlatMemory memory_{260};
    InterruptTable table_{.address = Gpa(0x1000),
                          .entries = 256,
                          .extended_mode = false,
                          .compatibility_allowed = false};
};

TEST_F(InterruptRemappingTest, DeliversWhatTheEntrySays) {
    put(5, kLow);
    InterruptResult expected;
    expected.ok = expected.remapped = true;
    expected.vector = 0x41;
    expected.destination = 0x23;
    expected.index = 5;
    EXPECT_EQ(remap(message(5)), expected);
}

TEST_F(InterruptRemappingTest, EachFieldOfAnEntryByItself) {
    put(5, kLow | 1 << 2);
    EXPECT_TRUE(remap(message(5)).logical_destination);
    put(5, kLow | 1 << 3);
    EXPECT_TRUE(remap(message(5)).redirection_hint);
    put(5, kLow | 1 << 4);
    EXPECT_TRUE(remap(message(5)).level_triggered);
    put(5, kLow | 0xf << 8);  // available to software
    EXPECT_TRUE(remap(message(5)).ok);
    for (unsigned vector = 0; vector < 256; ++vector) {
        put(5, std::uint64_t{vector} << 16 | kPresent);
        EXPECT_EQ(remap(message(5)).vector, vector);
    }
    for (unsigned mode = 0; mode < 8; ++mode) {
        put(5, kLow | mode << 5);
        if (mode == 3 || mode == 6) {
            expect_blocked(remap(message(5)), FaultReason::interrupt_entry_reserved, 5);
        } else {
            EXPECT_EQ(static_cast<unsigned>(remap(message(5)).delivery), mode);
        }
    }
}

TEST_F(InterruptRemappingTest, DestinationsWithAndWithoutExtendedMode) {
    for (unsigned destination = 0; destination < 256; ++destination) {
        put(5, std::uint64_t{destination} << 40 | kPresent);
        EXPECT_EQ(remap(message(5)).destination, destination);
    }
    table_.extended_mode = true;
    for (unsigned bit = 0; bit < 32; ++bit) {
        put(5, std::uint64_t{1} << (32 + bit) | kPresent);
        EXPECT_EQ(remap(message(5)).destination, 1u << bit);
    }
}

TEST_F(InterruptRemappingTest, EveryReservedBitOfAnEntry) {
    const auto is_reserved = [](unsigned bit, bool extended_mode) {
        return (bit >= 12 && bit <= 14) || bit == 15 || (bit >= 24 && bit <= 31) ||
               (!extended_mode && ((bit >= 32 && bit <= 39) || (bit >= 48 && bit <= 63))) ||
               bit >= 64 + 20;
    };
    for (const bool extended_mode : {false, true}) {
        table_.extended_mode = extended_mode;
        for (unsigned bit = 1; bit < 128; ++bit) {
            const std::uint64_t set = std::uint64_t{1} << bit % 64;
            for (const std::uint64_t fpd : {std::uint64_t{0}, kFpd}) {
                put(9, kPresent | fpd | (bit < 64 ? set : 0), bit < 64 ? 0 : set);
                const auto result = remap(message(9));
                SCOPED_TRACE(bit);
                if (is_reserved(bit, extended_mode)) {
                    expect_blocked(result, FaultReason::interrupt_entry_reserved, 9, fpd != 0);
                } else {
                    EXPECT_NE(result.reason, FaultReason::interrupt_entry_reserved);
                }
            }
        }
    }
}

TEST_F(InterruptRemappingTest, PostedFormatIsRefused) {
    put(5, kLow | 1 << 15);
    expect_blocked(remap(message(5)), FaultReason::interrupt_entry_reserved, 5);
    table_.extended_mode = true;
    put(5, kExtendedLow | 1 << 15 | kFpd);
    expect_blocked(remap(message(5)), FaultReason::interrupt_entry_reserved, 5, true);
}

TEST_F(InterruptRemappingTest, AbsentEntriesHonourFaultProcessingDisable) {
    expect_blocked(remap(message(5)), FaultReason::interrupt_entry_not_present, 5);
    put(5, kFpd);
    expect_blocked(remap(message(5)), FaultReason::interrupt_entry_not_present, 5, true);
    put(5, ~kPresent, ~std::uint64_t{0});
    expect_blocked(remap(message(5)), FaultReason::interrupt_entry_not_present, 5, true);
}

TEST_F(InterruptRemappingTest, EveryHandleReachesItsEntry) {
    table_.entries = 0x10000;
    for (unsigned index = 0; index < 0x10000; ++index) {
        put(index, std::uint64_t{index & 0xff} << 40 | std::uint64_t{index >> 8} << 16 | kPresent);
    }
    for (unsigned index = 0; index < 0x10000; ++index) {
        const auto result = remap(message(index));
        ASSERT_TRUE(result.ok);
        ASSERT_EQ(result.index, index);
        ASSERT_EQ(result.destination, index & 0xff);
        ASSERT_EQ(result.vector, index >> 8);
        // The two low-order address bits are not looked at.
        ASSERT_EQ(remap(message(index) | 3), result);
    }
}

TEST_F(InterruptRemappingTest, SubhandlesAreAddedOnlyIfValid) {
    put(3, kLow);
    put(3 + 14, kLow);
    EXPECT_EQ(remap(message(3), 14).index, 3u);
    EXPECT_EQ(remap(message(3), 0xdeadbeef).index, 3u);
    EXPECT_EQ(remap(message(3, true), 14).index, 17u);
    EXPECT_EQ(remap(message(3, true), 0).index, 3u);
}

TEST_F(InterruptRemappingTest, ReservedDataBitsWithASubhandle) {
    put(3, kLow);
    for (unsigned bit = 16; bit < 32; ++bit) {
        expect_blocked(remap(message(3, true), 1u << bit), FaultReason::interrupt_request_reserved,
                       3);
        EXPECT_TRUE(remap(message(3), 1u << bit).ok);
    }
}

TEST_F(InterruptRemappingTest, AddressesOutsideTheInterruptRange) {
    put(0, kLow);
    for (const std::uint64_t address :
         {message(0) | std::uint64_t{1} << 32, message(0) | std::uint64_t{1} << 63,
          message(0) - 0x100000, message(0) + 0x100000}) {
        expect_blocked(remap(address), FaultReason::interrupt_request_reserved, 0);
    }
}

TEST_F(InterruptRemappingTest, IndexesBeyondTheTable) {
    for (unsigned size = 2; size <= 0x10000; size *= 2) {
        table_.entries = size;
        EXPECT_EQ(remap(message(size - 1)).reason, FaultReason::interrupt_entry_not_present);
        if (size < 0x10000) {
            expect_blocked(remap(message(size)), FaultReason::interrupt_index_beyond_table, size);
        }
        expect_blocked(remap(message(size - 1, true), 1), FaultReason::interrupt_index_beyond_table,
                       size & 0xffff);
    }
    // The sum of handle and subhandle does not wrap into the table.
    put(1, kLow);
    expect_blocked(remap(message(2, true), 0xffff), FaultReason::interrupt_index_beyond_table, 1);
}

TEST_F(InterruptRemappingTest, TableOutsideRam) {
    memory_.remove_page(table_.address);
    expect_blocked(remap(message(5)), FaultReason::interrupt_table_inaccessible, 5);
}

TEST_F(InterruptRemappingTest, CompatibilityFormat) {
    const std::uint64_t address = kRange | 0x37 << 12 | 1 << 3 | 1 << 2;
    const std::uint32_t data = 1 << 15 | 1 << 14 | 1 << 8 | 0x99;
    for (const bool extended_mode : {false, true}) {
        for (const bool allowed : {false, true}) {
            table_.extended_mode = extended_mode;
            table_.compatibility_allowed = allowed;
            const auto result = remap(address, data);
            if (extended_mode || !allowed) {
                expect_blocked(result, FaultReason::compatibility_format_blocked, 0);
                continue;
            }
            InterruptResult expected;
            expected.ok = true;
            expected.vector = 0x99;
            expected.delivery = DeliveryMode::lowest_priority;
            expected.destination = 0x37;
            expected.logical_destination = expected.level_triggered = expected.redirection_hint =
                true;
            EXPECT_EQ(result, expected);
            EXPECT_EQ(InterruptRemapper::unchanged(address, data), expected);
        }
    }
    EXPECT_EQ(memory_.accesses(), 0u);
}

// Which source-ids an entry with these fields admits, by the text of specification 9.9.
bool admits(unsigned type, unsigned qualifier, unsigned sid, unsigned source) {
    switch (type) {
        case 0:
            return true;
        case 1:
            for (unsigned bit = 0; bit < 16; ++bit) {
                const bool ignored = (bit == 2 && qualifier >= 1) || (bit == 1 && qualifier >= 2) ||
                                     (bit == 0 && qualifier == 3);
                if (!ignored && (sid >> bit & 1) != (source >> bit & 1)) {
                    return false;
                }
            }
            return true;
        default:
            // First bus in the upper byte, last bus in the lower one.
            return source / 256 >= sid / 256 && source / 256 <= sid % 256;
    }
}

TEST_F(InterruptRemappingTest, SourceValidationForEverySource) {
    for (const bool extended_mode : {false, true}) {
        table_.extended_mode = extended_mode;
        for (unsigned type = 0; type < 3; ++type) {
            for (unsigned qualifier = 0; qualifier < 4; ++qualifier) {
                for (const unsigned sid : {0x0000u, 0x123bu, 0x1218u, 0x1812u, 0x00ffu, 0xffffu}) {
                    put(7, (extended_mode ? kExtendedLow : kLow) | kFpd,
                        sid | qualifier << 16 | type << 18);
                    for (unsigned value = 0; value < 0x10000; ++value) {
                        const auto result =
                            remap(message(7), 0, SourceId(static_cast<std::uint16_t>(value)));
                        ASSERT_EQ(result.ok, admits(type, qualifier, sid, value))
                            << std::hex << "source " << value << " SID " << sid << " SVT " << type
                            << " SQ " << qualifier;
                        if (!result.ok) {
                            ASSERT_EQ(result.reason, FaultReason::interrupt_source_refused);
                            ASSERT_TRUE(result.fault_processing_disabled);
                        }
                    }
                }
            }
        }
    }
}

TEST_F(InterruptRemappingTest, ReservedSourceValidationTypeIsRefused) {
    put(7, kLow, kDevice.value() | 3 << 18);
    expect_blocked(remap(message(7)), FaultReason::interrupt_entry_reserved, 7);
}

TEST_F(InterruptRemappingTest, AnEntryThatVanishesWhileItIsReadIsNotMixed) {
    // Between the two loads, the guest frees the entry: without care, its source validation would
    // be gone while it still counts as present.
    put(7, kLow, 0x0101 | 1 << 18);
    memory_.before_access = [this](unsigned access) {
        if (access == 1) {
            put(7, 0, 0);
        }
    };
    expect_blocked(remap(message(7)), FaultReason::interrupt_entry_not_present, 7);
}

}  // namespace
}  // namespace umbra::vtd
