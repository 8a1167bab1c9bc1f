// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/context_tables.h"

#include <gtest/gtest.h>

#include "tests/unit/vtd_tables/flat_memory.h"

namespace umbra::vtd {
namespace {

using testing::FlatMemory;

constexpr Gpa kRootTable(0x1000);
constexpr Gpa kContextTable(0x2000);
constexpr Gpa kPagingTable(0x5000);
constexpr SourceId kDevice(0x3a, 0x7d);
constexpr unsigned kHostAddressWidth = 46;

constexpr std::uint64_t kPresent = 1;
constexpr std::uint64_t kFpd = 2;

constexpr Gpa root_entry(SourceId source = kDevice) {
    return kRootTable + std::uint64_t{source.bus()} * 16;
}
constexpr Gpa context_entry(SourceId source = kDevice) {
    return kContextTable + std::uint64_t{source.devfn()} * 16;
}

class ContextTablesTest : public ::testing::Test {
  protected:
    ContextTablesTest() {
        memory_.store(root_entry(), kContextTable.value() | kPresent);
        put_context(kPagingTable.value() | kPresent, 0x1234 << 8 | 2);
    }

    void put_context(std::uint64_t low, std::uint64_t high) {
        memory_.store(context_entry(), low);
        memory_.store(context_entry() + 8, high);
    }
    [[nodiscard]] ContextLookup lookup() const {
        return ContextTables(memory_, rules_).lookup(kRootTable, kDevice);
    }
    void expect_blocked(FaultReason reason, bool fault_processing_disabled = false) const {
        const auto found = lookup();
        EXPECT_FALSE(found.present);
        EXPECT_EQ(found.reason, reason);
        EXPECT_EQ(found.fault_processing_disabled, fault_processing_disabled);
    }

    FlatMemory memory_{8};
    ContextRules rules_{.host_address_width = kHostAddressWidth,
                        .max_levels = 4,
                        .pass_through = true,
                        .device_iotlb = true};
};

TEST_F(ContextTablesTest, ReadsEveryFieldOfAValidEntry) {
    const ContextLookup expected{.translation_off = false,
                                 .present = true,
                                 .fault_processing_disabled = false,
                                 .reason = FaultReason::none,
                                 .type = TranslationType::second_stage,
                                 .domain = DomainId{0x1234},
                                 .table = kPagingTable,
                                 .levels = 4};
    EXPECT_EQ(lookup(), expected);
}

TEST_F(ContextTablesTest, SelectsTheEntryByBusAndFunction) {
    for (unsigned value = 0; value < 0x10000; ++value) {
        const SourceId source(static_cast<std::uint16_t>(value));
        const auto found = ContextTables(memory_, rules_).lookup(kRootTable, source);
        EXPECT_EQ(found.present, source == kDevice);
        if (source.bus() != kDevice.bus()) {
            EXPECT_EQ(found.reason, FaultReason::root_not_present);
        } else if (source != kDevice) {
            EXPECT_EQ(found.reason, FaultReason::context_not_present);
        }
    }
}

TEST_F(ContextTablesTest, RootTableOutsideRam) {
    memory_.remove_page(kRootTable);
    expect_blocked(FaultReason::root_table_inaccessible);
    EXPECT_EQ(ContextTables(memory_, rules_).lookup(Gpa(0x100000), kDevice).reason,
              FaultReason::root_table_inaccessible);
}

TEST_F(ContextTablesTest, RootEntryNotPresent) {
    memory_.store(root_entry(), kContextTable.value());
    expect_blocked(FaultReason::root_not_present);
}

TEST_F(ContextTablesTest, EveryReservedBitOfARootEntry) {
    for (unsigned bit = 1; bit < 128; ++bit) {
        const bool address_bit = bit >= 12 && bit < kHostAddressWidth;
        if (address_bit) {
            continue;
        }
        const Gpa quad = root_entry() + (bit < 64 ? 0 : 8);
        const std::uint64_t original = memory_.load(quad);
        memory_.store(quad, original | std::uint64_t{1} << bit % 64);
        SCOPED_TRACE(bit);
        expect_blocked(FaultReason::root_reserved);
        memory_.store(quad, original);
    }
    EXPECT_TRUE(lookup().present);
}

TEST_F(ContextTablesTest, ReservedBitsOfAnAbsentRootEntryDoNotCount) {
    memory_.store(root_entry(), ~kPresent);
    memory_.store(root_entry() + 8, ~std::uint64_t{0});
    expect_blocked(FaultReason::root_not_present);
}

TEST_F(ContextTablesTest, ContextTableOutsideRam) {
    memory_.remove_page(kContextTable);
    expect_blocked(FaultReason::context_table_inaccessible);
}

TEST_F(ContextTablesTest, AbsentContextEntryHonoursFaultProcessingDisable) {
    put_context(0, 0);
    expect_blocked(FaultReason::context_not_present);
    put_context(kFpd, 0);
    expect_blocked(FaultReason::context_not_present, true);
    put_context(~kPresent, ~std::uint64_t{0});
    expect_blocked(FaultReason::context_not_present, true);
}

TEST_F(ContextTablesTest, EveryReservedBitOfAContextEntry) {
    const auto is_reserved = [](unsigned bit) {
        return (bit >= 4 && bit <= 11) || (bit >= kHostAddressWidth && bit < 64) || bit == 64 + 7 ||
               bit >= 64 + 24;
    };
    for (unsigned bit = 1; bit < 128; ++bit) {
        const Gpa quad = context_entry() + (bit < 64 ? 0 : 8);
        const std::uint64_t original = memory_.load(quad);
        memory_.store(quad, original ^ std::uint64_t{1} << bit % 64);
        const bool refused = lookup().reason == FaultReason::context_reserved;
        EXPECT_EQ(refused, is_reserved(bit)) << bit;
        if (refused) {
            memory_.store(context_entry(), memory_.load(context_entry()) | kFpd);
            expect_blocked(FaultReason::context_reserved, true);
            memory_.store(context_entry(), memory_.load(context_entry()) & ~kFpd);
        }
        memory_.store(quad, original);
    }
}

TEST_F(ContextTablesTest, IgnoredBitsDoNotMatter) {
    const auto expected = lookup();
    put_context(kPagingTable.value() | kPresent, 0x1234 << 8 | 0xf << 3 | 2);
    EXPECT_EQ(lookup(), expected);
}

TEST_F(ContextTablesTest, AddressBitsReservedFollowTheHostAddressWidth) {
    for (unsigned width = 39; width <= 52; ++width) {
        rules_.host_address_width = width;
        put_context(std::uint64_t{1} << (width - 1) | kPresent, 2);
        EXPECT_TRUE(lookup().present) << width;
        put_context(std::uint64_t{1} << width | kPresent, 2);
        expect_blocked(FaultReason::context_reserved);
    }
}

TEST_F(ContextTablesTest, AddressWidths) {
    for (const unsigned max_levels : {3u, 4u}) {
        rules_.max_levels = max_levels;
        for (unsigned field = 0; field < 8; ++field) {
            for (const unsigned type : {0u, 2u}) {
                put_context(kPagingTable.value() | type << 2 | kFpd | kPresent, field);
                const bool valid = field == 1 || (field == 2 && max_levels == 4);
                SCOPED_TRACE(field);
                EXPECT_EQ(lookup().present, valid);
                EXPECT_TRUE(lookup().fault_processing_disabled);
                if (valid) {
                    EXPECT_EQ(lookup().levels, field + 2);
                } else {
                    expect_blocked(FaultReason::invalid_context, true);
                }
            }
        }
    }
}

TEST_F(ContextTablesTest, TranslationTypesThatTheUnitDoesNotOfferAreInvalid) {
    for (const bool pass_through : {false, true}) {
        for (const bool device_iotlb : {false, true}) {
            rules_.pass_through = pass_through;
            rules_.device_iotlb = device_iotlb;
            const bool valid[] = {true, device_iotlb, pass_through, false};
            for (unsigned type = 0; type < 4; ++type) {
                put_context(kPagingTable.value() | type << 2 | kPresent, 1);
                SCOPED_TRACE(type);
                const auto found = lookup();
                EXPECT_EQ(found.present, valid[type]);
                if (valid[type]) {
                    EXPECT_EQ(static_cast<unsigned>(found.type), type);
                    EXPECT_EQ(found.is_second_stage(), type != 2);
                } else {
                    expect_blocked(FaultReason::invalid_context);
                }
            }
        }
    }
}

TEST_F(ContextTablesTest, AnEntryThatVanishesWhileItIsReadIsNotMixed) {
    // The guest clears the entry, low quad first, between the unit's two loads of it. Loads 0 to 2
    // are of the root entry, 3 and 4 of the two quads of the context entry.
    memory_.before_access = [this](unsigned access) {
        if (access == 4) {
            put_context(0, 0);
        }
    };
    expect_blocked(FaultReason::context_not_present);
}

TEST_F(ContextTablesTest, AnEntryThatIsReplacedWhileItIsReadIsNotMixed) {
    memory_.before_access = [this](unsigned access) {
        if (access == 4) {
            put_context(0x6000 | kPresent, 0x5678 << 8 | 1);
        }
    };
    const auto found = lookup();
    EXPECT_TRUE(found.present);
    EXPECT_EQ(found.table, Gpa(0x6000));
    EXPECT_EQ(found.domain, DomainId{0x5678});
    EXPECT_EQ(found.levels, 3u);
}

TEST_F(ContextTablesTest, AnEntryThatChangesAllTheTimeIsReadABoundedNumberOfTimes) {
    memory_.before_access = [this](unsigned access) {
        put_context(kPagingTable.value() | kPresent | (access % 2 != 0 ? kFpd : 0), 2);
    };
    EXPECT_TRUE(lookup().present);
    EXPECT_LT(memory_.accesses(), 32u);
}

}  // namespace
}  // namespace umbra::vtd
