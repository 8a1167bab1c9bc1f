// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the plugin writes without protobuf's library, read with it.
#include "plugin/telemetry/wire.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "plugin/telemetry/json.h"
#include "plugin/tools/decode.h"
#include "plugin/tools/errors.h"
#include "tests/unit/telemetry/samples.h"
#include "umbra.pb.h"

namespace umbra {
namespace {

namespace snapshot = telemetry::snapshot;
namespace v1 = telemetry::v1;
using testing::empty_snapshot;
using testing::filled_snapshot;
using tools::Frame;
using tools::InputError;

std::string encoded(const snapshot::Snapshot& data) {
    return telemetry::encode(snapshot::record(data));
}

std::string json(const snapshot::Snapshot& data) {
    return telemetry::to_json(snapshot::record(data));
}

// Protobuf writes the same bytes, so it took every byte for what it was meant to be.
TEST(Wire, ProtobufReadsAndWritesTheSame) {
    for (snapshot::Snapshot data :
         {filled_snapshot(), empty_snapshot(), snapshot::Snapshot{},
          filled_snapshot(std::numeric_limits<std::uint32_t>::max() - std::uint64_t{100'000})}) {
        // One element: protobuf writes maps in random order.
        if (!data.faults.reasons.empty()) {
            data.faults.reasons.resize(1);
        }
        const std::string bytes = encoded(data);
        v1::Snapshot message;
        ASSERT_TRUE(message.ParseFromString(bytes));
        EXPECT_EQ(message.SerializeAsString(), bytes);
        EXPECT_EQ(message.version(), data.version);
        EXPECT_EQ(message.unit(), data.unit);
        EXPECT_EQ(message.shadow().sync().syncs().page(), data.shadow.sync.syncs.page);
    }
}

TEST(Wire, EveryFieldSurvives) {
    const snapshot::Snapshot data = filled_snapshot();
    const std::string bytes = encoded(data);
    EXPECT_EQ(json(tools::decode({.offset = 0, .bytes = bytes})), json(data));
    EXPECT_EQ(json(data).find(": 0"), std::string::npos) << "a value that is not filled in";
}

TEST(Wire, LargestNumbersSurvive) {
    snapshot::Snapshot data = empty_snapshot();
    data.taken_ns = std::numeric_limits<std::uint64_t>::max();
    data.domains.push_back({.domain = 0xffff});
    data.shadow.lock_hold.buckets.push_back(
        {.up_to = std::numeric_limits<std::uint64_t>::max(), .count = 1});
    const snapshot::Snapshot read = tools::decode({.offset = 0, .bytes = encoded(data)});
    EXPECT_EQ(json(read), json(data));
    EXPECT_EQ(read.taken_ns, std::numeric_limits<std::uint64_t>::max());
}

TEST(Wire, TheLengthComesFirst) {
    const snapshot::Snapshot data = filled_snapshot();
    const std::string bytes = encoded(data);
    ASSERT_GT(bytes.size(), 128u);
    ASSERT_LT(bytes.size(), 128u * 128u);
    const std::string whole = testing::delimited(data);
    ASSERT_EQ(whole.size(), bytes.size() + 2);
    EXPECT_EQ(static_cast<unsigned char>(whole[0]), (bytes.size() & 0x7f) | 0x80);
    EXPECT_EQ(static_cast<unsigned char>(whole[1]), bytes.size() >> 7);
    EXPECT_EQ(whole.substr(2), bytes);
}

// Messages of a later version of the format that kept its number.
TEST(Decode, WhatIsNotKnownIsIgnored) {
    v1::Snapshot message;
    ASSERT_TRUE(message.ParseFromString(encoded(empty_snapshot())));
    message.GetReflection()->MutableUnknownFields(&message)->AddVarint(900, 7);
    auto& device = *message.mutable_shadow()->add_devices();
    device.set_mode(static_cast<v1::Mode>(17));
    const snapshot::Snapshot read =
        tools::decode({.offset = 0, .bytes = message.SerializeAsString()});
    ASSERT_EQ(read.shadow.devices.size(), 1u);
    EXPECT_EQ(read.shadow.devices[0].mode, static_cast<std::uint64_t>(snapshot::Mode::blocked));
}

std::string problem_of(const Frame& frame) {
    try {
        (void)tools::decode(frame);
    } catch (const InputError& error) {
        return error.what();
    }
    return "";
}

TEST(Decode, SaysWhereAndWhatIsWrong) {
    EXPECT_EQ(problem_of({.offset = 7, .bytes = "\xff\xff\xff"}),
              "at byte 7: the message of 3 bytes is no snapshot, or it is damaged");
    EXPECT_EQ(problem_of({.offset = 1, .bytes = ""}),
              "at byte 1: the snapshot has version 0, and this umbra-stat reads version 1");
    snapshot::Snapshot later = empty_snapshot();
    later.version = 2;
    EXPECT_EQ(problem_of({.offset = 3, .bytes = encoded(later)}),
              "at byte 3: the snapshot has version 2, and this umbra-stat reads version 1");
    snapshot::Snapshot longer = empty_snapshot();
    longer.domains.resize(tools::kMostElements + 1);
    EXPECT_EQ(problem_of({.offset = 3, .bytes = encoded(longer)}),
              "at byte 3: list \"domains\" has 4097 elements, more than 4096");
}

// Nothing but an InputError comes of a damaged message.
TEST(Decode, EveryTruncationAndEveryFlippedBit) {
    const std::string bytes = encoded(filled_snapshot());
    for (std::size_t size = 0; size < bytes.size(); ++size) {
        (void)problem_of({.offset = 0, .bytes = bytes.substr(0, size)});
    }
    for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
        std::string damaged = bytes;
        damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
        (void)problem_of({.offset = 0, .bytes = damaged});
    }
}

}  // namespace
}  // namespace umbra
