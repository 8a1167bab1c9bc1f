// SPDX-License-Identifier: GPL-2.0-or-later
//
// Follows guest RAM when it moves in the host's memory. The guest's tables stay as they are then,
// but the leaves lead to other host memory. Each host mapping with such a leaf is mapped anew as a
// whole.
//
// Threading: one thread at a time.
#pragma once

#include "plugin/shadow/delta_builder.h"
#include "plugin/shadow/mirror.h"
#include "plugin/shadow/ram_snapshot.h"
#include "plugin/shadow/sync_run.h"

namespace umbra::shadow {

class RamFollower {
  public:
    // Whether the domain's hosts grant reads wherever they grant writes, from the next call of
    // follow() on.
    void set_write_implies_read(bool implies) { write_implies_read_ = implies; }
    // Takes the current map of guest RAM into `run.leaves`, and brings the host in line if the map
    // is another one than before. The delta has nothing pending, before and afterwards.
    void follow(SyncRun& run, DeltaBuilder& delta);

  private:
    // The leaves of one host mapping, as it was made before RAM changed.
    struct HostRun {
        LeafRef first{};
        Iova end{};
        bool some_move = false;
        bool some_stay = false;
    };
    void follow_leaves(SyncRun& run, DeltaBuilder& delta);
    // Maps the run anew if that is necessary.
    void follow_run(SyncRun& run, DeltaBuilder& delta, const HostRun& host_run);
    [[nodiscard]] bool has_to_move(const DomainLeaves& leaves, const HostRun& host_run) const;

    bool write_implies_read_ = false;
    RamSnapshot previous_;  // RAM before the change
};

}  // namespace umbra::shadow
