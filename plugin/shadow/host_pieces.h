// SPDX-License-Identifier: GPL-2.0-or-later
//
// What one host maps for leaves of the guest: the parts of them that lead to RAM, without the IOVAs
// that the host cannot map.
#pragma once

#include <cstdint>

#include "plugin/shadow/host_mapper.h"
#include "plugin/shadow/iova_holes.h"
#include "plugin/shadow/ram_snapshot.h"

namespace umbra::shadow {

// Calls `visit(HostMapping)` for each piece of [iova, iova + bytes), which leads to `guest` with
// `access`, in order.
template <class Visit>
void visit_host_pieces(const RamSnapshot& ram, const IovaHoles& holes, Iova iova,
                       std::uint64_t bytes, Gpa guest, Access access, Visit&& visit) {
    ram.pieces(guest, bytes, access, [&](const RamPiece& piece) {
        const Iova first = iova + piece.offset;
        holes.visit_usable({first, first + (piece.bytes - 1)}, [&](IovaRange part) {
            visit(HostMapping{part.first, part.extent() + 1, piece.host + (part.first - first),
                              guest + (part.first - iova), piece.access});
        });
    });
}

}  // namespace umbra::shadow
