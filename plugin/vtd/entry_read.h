// SPDX-License-Identifier: GPL-2.0-or-later
//
// Reading a 16-byte table entry out of guest memory that a guest CPU may be writing.
#pragma once

#include <optional>

#include "plugin/vtd/guest_memory.h"
#include "plugin/vtd/spec/field.h"
#include "plugin/vtd/types.h"

namespace umbra::vtd {

// Reads the entry at `address` (16-byte aligned) as two loads of 8 bytes, low quad first. nullopt
// if it is no RAM.
//
// Tearing: the present bit is in the low quad. Software that makes an entry present writes the low
// quad last, so a low quad that shows the bit guarantees the high quad that belongs to it. Software
// that takes an entry away clears the low quad first, and the high quad that is read after the low
// one may be gone already. So the low quad is read a second time. The pair is taken if the low quad
// is unchanged; otherwise the read starts over. A guest that keeps rewriting the entry gets, after
// a few attempts, a mixture of two of its own values, which is then checked like any other entry.
[[nodiscard]] std::optional<spec::Quads> read_entry(const GuestMemory& memory, Gpa address);

}  // namespace umbra::vtd
