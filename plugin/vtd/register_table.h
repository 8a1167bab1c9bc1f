// SPDX-License-Identifier: GPL-2.0-or-later
//
// Which registers a unit has, and what software may do with each bit of them: the attributes of
// VT-d specification 11.3. The register file keeps the rules; this is the table that they come
// from.
#pragma once

#include <cstdint>
#include <vector>

#include "plugin/vtd/capabilities.h"

namespace umbra::vtd {

// One register. A bit that is in no mask is constant: it keeps its reset value, which is 0 for
// reserved bits.
struct RegisterRow {
    std::uint32_t offset = 0;
    unsigned bytes = 4;
    std::uint64_t reset = 0;
    std::uint64_t read_write = 0;       // RW
    std::uint64_t write_one_clear = 0;  // RW1C
    std::uint64_t write_only = 0;       // WO
    std::uint64_t status = 0;           // RO for software, changed by the unit
};

[[nodiscard]] std::vector<RegisterRow> registers_of(const Capabilities& capabilities);

}  // namespace umbra::vtd
