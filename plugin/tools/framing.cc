// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/tools/framing.h"

#include "plugin/telemetry/wire.h"
#include "plugin/tools/errors.h"

namespace umbra::tools {
namespace {

struct Length {
    std::uint64_t value = 0;
    std::size_t bytes = 0;  // of the varint; 0 if it is incomplete
};

// Lengths that are allowed fit into three bytes, and writers use no more than are needed.
constexpr std::size_t kMostLengthBytes = 3;

std::optional<Length> read_length(std::string_view bytes) {
    Length length;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        if (i == kMostLengthBytes) {
            return std::nullopt;
        }
        const auto byte = static_cast<unsigned char>(bytes[i]);
        length.value |= std::uint64_t{byte & 0x7fU} << (7 * i);
        if ((byte & 0x80) == 0) {
            length.bytes = i + 1;
            return length;
        }
    }
    return length;
}

}  // namespace

void FrameReader::feed(std::string_view bytes) {
    pending_.erase(0, used_);
    offset_ += used_;
    used_ = 0;
    pending_ += bytes;
}

std::optional<Frame> FrameReader::next() {
    const std::string_view rest = std::string_view(pending_).substr(used_);
    const std::uint64_t offset = offset_ + used_;
    const std::optional<Length> length = read_length(rest);
    if (!length || length->value > telemetry::kMaxMessageBytes) {
        throw InputError("at byte " + std::to_string(offset) + ": a message of more than " +
                         std::to_string(telemetry::kMaxMessageBytes) +
                         " bytes is announced, so this is no output of Umbra, or it is damaged");
    }
    if (length->bytes == 0 || rest.size() - length->bytes < length->value) {
        return std::nullopt;
    }
    const auto size = static_cast<std::size_t>(length->value);
    used_ += length->bytes + size;
    return Frame{.offset = offset + length->bytes,
                 .bytes = std::string(rest.substr(length->bytes, size))};
}

void FrameReader::finish() const {
    const std::string_view rest = std::string_view(pending_).substr(used_);
    if (rest.empty()) {
        return;
    }
    const std::optional<Length> length = read_length(rest);
    const bool known = length && length->bytes > 0;
    throw InputError("at byte " + std::to_string(offset_ + used_) +
                     ": the input ends within a message" +
                     (known ? " of " + std::to_string(length->value) + " bytes, of which " +
                                  std::to_string(rest.size() - length->bytes) + " are there"
                            : std::string("'s length")));
}

}  // namespace umbra::tools
