// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/tools/framing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "plugin/telemetry/wire.h"
#include "plugin/tools/errors.h"

namespace umbra::tools {
namespace {

std::string framed(const std::string& message) {
    std::string out;
    std::size_t size = message.size();
    for (; size >= 128; size >>= 7) {
        out += static_cast<char>(static_cast<unsigned char>(size | 0x80));
    }
    out += static_cast<char>(static_cast<unsigned char>(size));
    return out + message;
}

template <class Action>
std::string problem_of(Action&& action) {
    try {
        action();
    } catch (const InputError& error) {
        return error.what();
    }
    return "no problem";
}

TEST(Framing, PiecesOfAnySize) {
    const std::vector<std::string> messages = {"a", "", std::string(127, 'b'),
                                               std::string(128, 'c'), std::string(20'000, 'd')};
    std::string stream;
    for (const std::string& message : messages) {
        stream += framed(message);
    }
    for (const std::size_t piece : {1u, 2u, 3u, 127u, 1000u, 100'000u}) {
        FrameReader reader;
        std::vector<std::string> found;
        for (std::size_t at = 0; at < stream.size(); at += piece) {
            reader.feed(std::string_view(stream).substr(at, piece));
            while (const std::optional<Frame> frame = reader.next()) {
                found.push_back(frame->bytes);
                EXPECT_EQ(
                    stream.substr(static_cast<std::size_t>(frame->offset), frame->bytes.size()),
                    frame->bytes);
            }
        }
        EXPECT_EQ(found, messages) << "pieces of " << piece;
        EXPECT_NO_THROW(reader.finish());
    }
}

TEST(Framing, TheLongestMessage) {
    FrameReader reader;
    reader.feed(framed(std::string(telemetry::kMaxMessageBytes, 'x')));
    const std::optional<Frame> frame = reader.next();
    ASSERT_TRUE(frame);
    EXPECT_EQ(frame->bytes.size(), telemetry::kMaxMessageBytes);
}

TEST(Framing, LengthsThatCannotBe) {
    const std::string sentence =
        ": a message of more than 1048576 bytes is announced, so this is no output of Umbra, or it "
        "is damaged";
    for (const std::string& length : {std::string("\x81\x80\x40"), std::string("\xff\xff\x7f"),
                                      std::string("\x80\x80\x80\x80\x80\x01")}) {
        FrameReader reader;
        reader.feed(framed("good") + length);
        ASSERT_TRUE(reader.next());
        EXPECT_EQ(problem_of([&] { (void)reader.next(); }), "at byte 5" + sentence);
    }
}

TEST(Framing, InputThatEndsTooEarly) {
    const std::string whole = framed("good") + framed(std::string(300, 'x'));
    for (std::size_t size = 0; size < whole.size(); ++size) {
        FrameReader reader;
        reader.feed(whole.substr(0, size));
        while (reader.next()) {
        }
        std::string expected = "no problem";
        if (size == 6) {
            expected = "at byte 5: the input ends within a message's length";
        } else if (size > 6) {
            expected = "at byte 5: the input ends within a message of 300 bytes, of which " +
                       std::to_string(size - 7) + " are there";
        } else if (size > 0 && size < 5) {
            expected = "at byte 0: the input ends within a message of 4 bytes, of which " +
                       std::to_string(size - 1) + " are there";
        }
        EXPECT_EQ(problem_of([&] { reader.finish(); }), expected) << size;
    }
}

}  // namespace
}  // namespace umbra::tools
