// SPDX-License-Identifier: GPL-2.0-or-later
//
// The verification of the shadow as JSON, for the device's property "verify": {"clean", "complete",
// "stopped-at" (only if not complete), "domains", "devices", "pages-checked", "errors", "pending",
// "differences": [{"kind": "error"|"pending", "domain", "source", "iova", "bytes", "expected":
// SIDE, "actual": SIDE}]}, SIDE being {"guest", "access": "none"|"read"|"write"|"read-write"};
// addresses are strings, "0x…".
#pragma once

#include <string>

#include "plugin/shadow/verify.h"

namespace umbra::bridge {

[[nodiscard]] std::string verification_json(const shadow::Verification& verification);

}  // namespace umbra::bridge
