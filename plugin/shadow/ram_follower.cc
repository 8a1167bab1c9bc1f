// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/ram_follower.h"

#include <utility>

namespace umbra::shadow {

using vtd::DecodedEntry;

void RamFollower::follow(SyncRun& run, DeltaBuilder& delta) {
    if (run.leaves.ram.update(run.unit.ram, previous_, write_implies_read_)) {
        delta.set_remaps(true);
        follow_leaves(run, delta);
        delta.flush();
        delta.set_remaps(false);
    }
}

void RamFollower::follow_leaves(SyncRun& run, DeltaBuilder& delta) {
    const DomainLeaves& leaves = run.leaves;
    HostRun host_run;
    leaves.mirror.leaves(IovaRange::everything(), [&](LeafRef leaf) {
        if (!leaf.joined()) {
            follow_run(run, delta, host_run);
            host_run = {.first = leaf};
        }
        host_run.end = leaf.iova() + leaf.bytes();
        const DecodedEntry entry = leaves.mirror.entry(*leaf.table, leaf.slot);
        const Access access = entry.access & leaf.table->access;
        const bool same =
            RamSnapshot::same(leaves.ram, access, previous_, access, entry.address, leaf.bytes());
        (same ? host_run.some_stay : host_run.some_move) = true;
    });
    follow_run(run, delta, host_run);
}

bool RamFollower::has_to_move(const DomainLeaves& leaves, const HostRun& host_run) const {
    if (host_run.some_move) {
        return true;
    }
    // Joined leaves lie in one run of RAM. If a border came between them, the mapping has to be cut
    // there, even if all leaves lead to where they led before.
    const LeafRef first = host_run.first;
    const std::uint64_t bytes = host_run.end - first.iova();
    const Gpa guest = leaves.mirror.entry(*first.table, first.slot).address;
    return bytes != first.bytes() && leaves.ram.run_around(guest, bytes) == nullptr;
}

void RamFollower::follow_run(SyncRun& run, DeltaBuilder& delta, const HostRun& host_run) {
    DomainLeaves& leaves = run.leaves;
    const LeafRef first = host_run.first;
    if (!first || !has_to_move(leaves, host_run)) {
        return;
    }
    const std::uint64_t bytes = host_run.end - first.iova();
    const DecodedEntry entry = leaves.mirror.entry(*first.table, first.slot);
    const Access access = entry.access & first.table->access;
    if (host_run.some_stay || previous_.in_pieces(entry.address, bytes, access) ||
        leaves.ram.in_pieces(entry.address, bytes, access)) {
        ++run.tally.resizes;
    }
    const auto each_leaf = [&](auto&& visit) {
        leaves.mirror.leaves({first.iova(), host_run.end - 1}, [&](LeafRef leaf) {
            visit(*leaf.table, leaf.slot, leaves.mirror.entry(*leaf.table, leaf.slot));
        });
    };
    // The removals describe what the host has, so RAM is as it was while they are emitted. They
    // come after all that is pending, so nothing is carried out meanwhile.
    std::swap(leaves.ram, previous_);
    each_leaf([&](Table& table, unsigned slot, const DecodedEntry& leaf) {
        delta.emit_removal(table, slot, leaf);
    });
    std::swap(leaves.ram, previous_);
    // The leaves become one mapping again, and are not joined to the mapping before them.
    delta.set_join_block(kPageSize);
    each_leaf([&](Table& table, unsigned slot, const DecodedEntry& leaf) {
        delta.emit_addition(table, slot, leaf);
        delta.set_join_block(DeltaBuilder::kNoBorders);
        delta.flush_if_full();
    });
    delta.flush_if_full();
}

}  // namespace umbra::shadow
