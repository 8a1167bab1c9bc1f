// SPDX-License-Identifier: GPL-2.0-or-later
//
// A message of a file or stream as a snapshot.
#pragma once

#include <cstddef>

#include "plugin/tools/framing.h"
#include "snapshot_types.h"

namespace umbra::tools {

// Longest list that is taken; writers stay well below.
inline constexpr std::size_t kMostElements = 4096;

// Throws InputError, naming the frame's offset, if it is no snapshot that this program understands.
[[nodiscard]] telemetry::snapshot::Snapshot decode(const Frame& frame);

}  // namespace umbra::tools
