// SPDX-License-Identifier: GPL-2.0-or-later
//
// Protobuf's binary form of a snapshot, written without protobuf's library.
#pragma once

#include <cstddef>
#include <string>

#include "plugin/telemetry/schema.h"

namespace umbra::telemetry {

// Longest message that writers make and readers take.
inline constexpr std::size_t kMaxMessageBytes = std::size_t{1} << 20;

[[nodiscard]] std::string encode(const schema::Record& record);

// The length of the message as a varint, and the message.
[[nodiscard]] std::string encode_delimited(const schema::Record& record);

}  // namespace umbra::telemetry
