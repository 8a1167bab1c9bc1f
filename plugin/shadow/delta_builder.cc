// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/delta_builder.h"

namespace umbra::shadow {

bool DeltaBuilder::misses_any(IovaRange range) {
    bool any = false;
    if (missing_from(range.first)) {
        leaves_.mirror.leaves(range, [&](LeafRef leaf) { any = any || bindings_.misses(leaf); });
    }
    return any;
}

void DeltaBuilder::emit_irregular(const Table& table, unsigned slot,
                                  const vtd::DecodedEntry& entry) {
    const IovaRange range = table.entry_range(slot);
    const std::uint64_t bytes = table.entry_bytes();
    const Access access = entry.access & table.access;
    ++leaves_.irregular;
    if (access == Access::none) {
        return;
    }
    std::uint64_t mapped = 0;
    leaves_.ram.pieces(entry.address, bytes, access,
                       [&](const RamPiece& piece) { mapped += piece.bytes; });
    if (mapped < bytes) {
        ++run_.tally.not_ram;
        run_.log.report(Trouble::not_ram, range, 0);
    }
    if (mapped != 0) {
        push_addition({range.first, bytes, HostAddress(), entry.address, access});
        delta_.in_pieces.push_back(delta_.additions.size() - 1);
    }
}

void DeltaBuilder::flush() {
    if (delta_.empty()) {
        return;
    }
    Plan& plan = run_.unit.plan;
    plan.build(delta_.removals, leaves_.mirror, leaves_.ram);
    bindings_.execute(plan, delta_, run_.slice);
    delta_.clear();
    run_.slice.look_soon();
}

}  // namespace umbra::shadow
