// SPDX-License-Identifier: GPL-2.0-or-later
//
// Cuts a file or stream into messages: each is preceded by its length as a varint. The bytes may
// come in pieces of any size, and are not trusted: no message is longer than kMaxMessageBytes, and
// no more than that is ever kept.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace umbra::tools {

struct Frame {
    std::uint64_t offset = 0;  // of the message's first byte, behind its length
    std::string bytes;
};

class FrameReader {
  public:
    void feed(std::string_view bytes);

    // The next whole message; nullopt if more bytes are needed. Throws InputError if what comes
    // next cannot be a message.
    [[nodiscard]] std::optional<Frame> next();

    // Call when no more bytes will come: throws InputError if a message is incomplete.
    void finish() const;

  private:
    std::string pending_;
    std::size_t used_ = 0;      // bytes of pending_ that belong to messages given out
    std::uint64_t offset_ = 0;  // in the input, of pending_'s first byte
};

}  // namespace umbra::tools
