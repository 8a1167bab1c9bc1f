// SPDX-License-Identifier: GPL-2.0-or-later
//
// A snapshot as JSON, in the form that umbra.proto describes.
#pragma once

#include <string>

#include "plugin/telemetry/schema.h"

namespace umbra::telemetry {

[[nodiscard]] std::string to_json(const schema::Record& record);

// "0x1f000" for the addresses of the JSON forms.
[[nodiscard]] std::string address_text(std::uint64_t address);

}  // namespace umbra::telemetry
