// SPDX-License-Identifier: GPL-2.0-or-later
//
// The idiom of plugin/vtd/spec: what a field reads and writes, and that a layout accounts for every
// bit. The layouts themselves are held against masks that are written down here once more.
#include <gtest/gtest.h>

#include <cstdint>

#include "plugin/vtd/spec/descriptors.h"
#include "plugin/vtd/spec/field.h"
#include "plugin/vtd/spec/messages.h"
#include "plugin/vtd/spec/registers.h"
#include "plugin/vtd/spec/tables.h"
#include "plugin/vtd/types.h"

namespace umbra::vtd::spec {
namespace {

enum class Color : std::uint8_t { red, green, blue };

using Number = Field<15, 8, unsigned>;
using Paint = Field<5, 4, Color>;
using Bit = Flag<63>;
using Page = AddressField<51, 12, Gpa>;
using Requester = Field<79, 64, SourceId>;
using HighAddress = AddressField<127, 76, Iova>;

TEST(Field, ReadsItsBitsAndNoOthers) {
    EXPECT_EQ(Number::get(0xffff'ffff'ffff'12ff), 0x12U);
    EXPECT_EQ(Number::get(~std::uint64_t{0xff00}), 0U);
    EXPECT_EQ(Paint::get(0xffef), Color::blue);
    EXPECT_TRUE(Bit::get(std::uint64_t{1} << 63));
    EXPECT_FALSE(Bit::get(~std::uint64_t{0} >> 1));
    EXPECT_EQ(Page::get(0xfff0'1234'5678'9fff), Gpa(0x1234'5678'9000));
}

TEST(Field, WritesItsBitsAndNoOthers) {
    std::uint64_t word = ~std::uint64_t{0};
    Number::set(word, 0x12);
    EXPECT_EQ(word, 0xffff'ffff'ffff'12ffU);
    std::uint32_t narrow = 0;
    Paint::set(narrow, Color::green);
    EXPECT_EQ(narrow, 0x10U);
    EXPECT_EQ(Page::place(Gpa(0xffff'ffff'ffff'ffff)), 0x000f'ffff'ffff'f000U);
    EXPECT_EQ(Number::place(0x345), 0x4500U) << "what does not fit is cut";
}

TEST(Field, OfTheHighQuadwordIsNumberedFrom64) {
    Quads quads{1, 0xffff'ffff'ffff'0000};
    Requester::set(quads, SourceId(0x1234));
    EXPECT_EQ(quads, (Quads{1, 0xffff'ffff'ffff'1234}));
    EXPECT_EQ(Requester::get(quads), SourceId(0x1234));
    EXPECT_EQ(HighAddress::get(quads), Iova(0xffff'ffff'ffff'1000));
}

TEST(Layout, ReservesWhatNoFieldHas) {
    using Narrow = Layout<32, Number, Paint>;
    EXPECT_EQ(Narrow::kReserved, 0xffff'00cfU);
    EXPECT_TRUE(Narrow::has_reserved(1));
    EXPECT_FALSE(Narrow::has_reserved(0xff30));
    using Wide = Layout<128, Bit, Requester>;
    EXPECT_EQ(Wide::kReserved, 0x7fff'ffff'ffff'ffffU);
    EXPECT_EQ(Wide::kReservedHigh, 0xffff'ffff'ffff'0000U);
    EXPECT_TRUE(Wide::has_reserved(Quads{0, 0x10000}));
    EXPECT_FALSE(Wide::has_reserved(Quads{std::uint64_t{1} << 63, 0xffff}));
}

template <class All>
constexpr bool covers_every_bit() {
    constexpr std::uint64_t kWord = All::kWidth == 32 ? 0xffff'ffff : ~std::uint64_t{0};
    constexpr std::uint64_t kHigh = All::kWidth == 128 ? ~std::uint64_t{0} : 0;
    return (All::kFields.low ^ All::kReserved) == kWord &&
           (All::kFields.low & All::kReserved) == 0 &&
           (All::kFields.high ^ All::kReservedHigh) == kHigh &&
           (All::kFields.high & All::kReservedHigh) == 0;
}

// Layout itself refuses fields that overlap or lie outside.
template <class... Layouts>
constexpr bool cover_every_bit() {
    return (covers_every_bit<typename Layouts::All>() && ...);
}
static_assert(cover_every_bit<RootEntry, ContextEntry, SecondStageEntry, InterruptEntry>());
static_assert(cover_every_bit<ContextCacheDescriptor, IotlbDescriptor, DeviceTlbDescriptor,
                              InterruptEntryCacheDescriptor, WaitDescriptor, RemappableData>());
static_assert(cover_every_bit<
              Version, Capability, ExtendedCapability, GlobalCommand, GlobalStatus,
              RootTableAddress, ContextCommand, InvalidateAddress, IotlbInvalidate, FaultStatus,
              FaultEventControl, FaultEventData, FaultEventAddress, FaultEventUpperAddress,
              FaultRecord, InvalidationQueueHead, InvalidationQueueTail, InvalidationQueueAddress,
              InvalidationCompletionStatus, InvalidationEventControl, InvalidationEventData,
              InvalidationEventAddress, InvalidationEventUpperAddress, InterruptTableAddress>());

TEST(Layout, OfTablesReservesWhatTheFiguresDo) {
    EXPECT_EQ(RootEntry::All::kReserved, 0xffeU);
    EXPECT_EQ(RootEntry::All::kReservedHigh, ~std::uint64_t{0});
    EXPECT_EQ(ContextEntry::All::kReserved, 0xff0U);
    EXPECT_EQ(ContextEntry::All::kReservedHigh, 0xffff'ffff'ff00'0080U);
    EXPECT_EQ(SecondStageEntry::All::kReserved, std::uint64_t{1} << 62);
    EXPECT_EQ(InterruptEntry::All::kReserved, 0xff00'7000U);
    EXPECT_EQ(InterruptEntry::All::kReservedHigh, 0xffff'ffff'fff0'0000U);
    EXPECT_EQ(InterruptEntry::kReservedWithShortDestination, 0xffff'00ff'0000'0000U);
}

TEST(Layout, OfDescriptorsReservesWhatTheFiguresDo) {
    EXPECT_EQ(ContextCacheDescriptor::All::kReserved, 0xfffc'0000'0000'f1c0U);
    EXPECT_EQ(ContextCacheDescriptor::All::kReservedHigh, ~std::uint64_t{0});
    EXPECT_EQ(IotlbDescriptor::All::kReserved, 0xffff'ffff'0000'f100U);
    EXPECT_EQ(IotlbDescriptor::All::kReservedHigh, 0xf80U);
    EXPECT_EQ(DeviceTlbDescriptor::All::kReserved, 0xffff'0000'ffe0'f1f0U);
    EXPECT_EQ(DeviceTlbDescriptor::All::kReservedHigh, 0xffeU);
    EXPECT_EQ(InterruptEntryCacheDescriptor::All::kReserved, 0xffff'0000'07ff'f1e0U);
    EXPECT_EQ(InterruptEntryCacheDescriptor::All::kReservedHigh, ~std::uint64_t{0});
    EXPECT_EQ(WaitDescriptor::All::kReserved, 0xffff'f180U);
    EXPECT_EQ(WaitDescriptor::All::kReservedHigh, 0x3U);
}

}  // namespace
}  // namespace umbra::vtd::spec
