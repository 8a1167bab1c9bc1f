// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/capabilities.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace umbra::vtd {
namespace {

// Bits `high` to `low` of `value`.
std::uint64_t field(std::uint64_t value, unsigned high, unsigned low) {
    return value >> low & (~std::uint64_t{0} >> (63 - (high - low)));
}

TEST(Capabilities, CapOfTheDefaultUnit) {
    const std::uint64_t cap = capabilities_of(UnitProperties()).cap;
    EXPECT_EQ(field(cap, 2, 0), 6U) << "ND: 64 Ki domains";
    EXPECT_EQ(field(cap, 3, 3), 0U) << "AFL";
    EXPECT_EQ(field(cap, 4, 4), 0U) << "RWBF";
    EXPECT_EQ(field(cap, 6, 5), 0U) << "PLMR, PHMR";
    EXPECT_EQ(field(cap, 7, 7), 1U) << "CM";
    EXPECT_EQ(field(cap, 12, 8), 0b00110U) << "SAGAW: 39 and 48 bits";
    EXPECT_EQ(field(cap, 15, 13), 0U) << "reserved";
    EXPECT_EQ(field(cap, 21, 16), 47U) << "MGAW";
    EXPECT_EQ(field(cap, 22, 22), 0U) << "ZLR";
    EXPECT_EQ(field(cap, 23, 23), 0U) << "reserved";
    EXPECT_EQ(field(cap, 33, 24), 0x22U) << "FRO";
    EXPECT_EQ(field(cap, 37, 34), 0b0011U) << "SLLPS: 2 MiB and 1 GiB";
    EXPECT_EQ(field(cap, 39, 39), 1U) << "PSI";
    EXPECT_EQ(field(cap, 47, 40), 7U) << "NFR: 8 recording registers";
    EXPECT_EQ(field(cap, 53, 48), 18U) << "MAMV";
    EXPECT_EQ(field(cap, 55, 54), 0U) << "DWD, DRD";
    EXPECT_EQ(field(cap, 61, 56), 0U) << "FS1GP, PI, FS5LP, ECMDS";
    EXPECT_EQ(field(cap, 62, 62), 1U) << "ESIRTPS";
    EXPECT_EQ(field(cap, 63, 63), 1U) << "ESRTPS";
}

TEST(Capabilities, EcapOfTheDefaultUnit) {
    const std::uint64_t ecap = capabilities_of(UnitProperties()).ecap;
    EXPECT_EQ(field(ecap, 0, 0), 1U) << "C";
    EXPECT_EQ(field(ecap, 1, 1), 1U) << "QI";
    EXPECT_EQ(field(ecap, 2, 2), 0U) << "DT";
    EXPECT_EQ(field(ecap, 3, 3), 1U) << "IR";
    EXPECT_EQ(field(ecap, 4, 4), 0U) << "EIM";
    EXPECT_EQ(field(ecap, 6, 6), 1U) << "PT";
    EXPECT_EQ(field(ecap, 7, 7), 0U) << "SC";
    EXPECT_EQ(field(ecap, 17, 8), 0xfU) << "IRO";
    EXPECT_EQ(field(ecap, 23, 20), 15U) << "MHMV";
    EXPECT_EQ(field(ecap, 63, 24), 0U) << "scalable mode and all that belongs to it";
}

TEST(Capabilities, PropertiesSetTheirFieldAndNoOther) {
    const Capabilities base = capabilities_of(UnitProperties());
    UnitProperties properties;
    properties.caching_mode = false;
    EXPECT_EQ(capabilities_of(properties).cap, base.cap & ~(std::uint64_t{1} << 7));

    properties = UnitProperties();
    properties.extended_interrupt_mode = true;
    EXPECT_EQ(capabilities_of(properties).ecap, base.ecap | 1 << 4);
    EXPECT_TRUE(capabilities_of(properties).extended_interrupt_mode());

    properties = UnitProperties();
    properties.dma_translation = false;
    EXPECT_EQ(capabilities_of(properties).cap, base.cap & ~(std::uint64_t{0b00110} << 8));
    EXPECT_EQ(properties.error(), nullptr);
    properties.interrupt_remapping = false;
    EXPECT_NE(properties.error(), nullptr);

    properties = UnitProperties();
    properties.pass_through = false;
    EXPECT_EQ(capabilities_of(properties).ecap, base.ecap & ~(std::uint64_t{1} << 6));

    properties = UnitProperties();
    properties.device_iotlb = true;
    EXPECT_EQ(capabilities_of(properties).ecap, base.ecap | 1 << 2);
    EXPECT_TRUE(capabilities_of(properties).device_tlb());

    properties = UnitProperties();
    properties.snoop_control = true;
    EXPECT_EQ(capabilities_of(properties).ecap, base.ecap | 1 << 7);
}

TEST(Capabilities, NarrowUnitReportsThreeLevelsOnly) {
    UnitProperties properties;
    properties.address_width = 39;
    const std::uint64_t cap = capabilities_of(properties).cap;
    EXPECT_EQ(field(cap, 12, 8), 0b00010U);
    EXPECT_EQ(field(cap, 21, 16), 38U);
}

TEST(Capabilities, WithoutInterruptRemappingNothingOfItIsReported) {
    UnitProperties properties;
    properties.interrupt_remapping = false;
    const Capabilities capabilities = capabilities_of(properties);
    EXPECT_FALSE(capabilities.interrupt_remapping());
    EXPECT_EQ(field(capabilities.ecap, 4, 3), 0U) << "IR, EIM";
    EXPECT_EQ(field(capabilities.ecap, 23, 20), 0U) << "MHMV";
    EXPECT_EQ(field(capabilities.cap, 62, 62), 0U) << "ESIRTPS";
}

TEST(Capabilities, HostAddressMask) {
    UnitProperties properties;
    properties.host_address_width = 52;
    EXPECT_EQ(capabilities_of(properties).host_address_mask, 0x000f'ffff'ffff'ffffU);
    properties.host_address_width = 32;
    EXPECT_EQ(capabilities_of(properties).host_address_mask, 0xffff'ffffU);
}

TEST(UnitProperties, ImpossibleOnesAreRefusedWithASentence) {
    EXPECT_EQ(UnitProperties().error(), nullptr);
    for (const unsigned width : {0U, 38U, 40U, 47U, 49U, 57U, 64U}) {
        UnitProperties properties;
        properties.address_width = width;
        EXPECT_NE(properties.error(), nullptr) << width;
    }
    for (const unsigned width : {0U, 31U, 53U, 64U}) {
        UnitProperties properties;
        properties.host_address_width = width;
        EXPECT_NE(properties.error(), nullptr) << width;
    }
    UnitProperties properties;
    properties.interrupt_remapping = false;
    properties.extended_interrupt_mode = true;
    EXPECT_NE(properties.error(), nullptr);
}

}  // namespace
}  // namespace umbra::vtd
