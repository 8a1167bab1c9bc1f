// SPDX-License-Identifier: GPL-2.0-or-later
//
// Leaves that change their size and not their translation: the guest replaces a large leaf by a
// table of small ones, or a table by a large leaf. If each page still leads to the same place, the
// mirror takes the new form and the host mapping stays as it is.
//
// A resize is refused while any device misses a part of it, and small leaves do not become a large
// one where a host has a hole, which is mapped in pieces of its own. The caller then removes the
// old leaves and adds the new ones.
//
// Threading: one thread at a time.
#pragma once

#include <cstdint>

#include "plugin/shadow/delta_builder.h"
#include "plugin/shadow/sync_run.h"

namespace umbra::shadow {

class LeafResize {
  public:
    // Both outlive the object.
    LeafResize(SyncRun& run, DeltaBuilder& delta) : run_(run), leaves_(run.leaves), delta_(delta) {}

    // Both return whether the mirror took the new form. If not, it is as it was; pending changes
    // may have been flushed.

    // The leaf at `slot` has become `value`, which is the table `entry`.
    [[nodiscard]] bool refine(Table& table, unsigned slot, std::uint64_t value,
                              const vtd::DecodedEntry& entry);
    // The entry that leads to `child` has become `value`, which is the leaf `entry`.
    [[nodiscard]] bool coarsen(Table& child, std::uint64_t value, const vtd::DecodedEntry& entry);

  private:
    // Takes over the guest's entries below `table`. False, with a part of them taken over, if they
    // do not translate to `guest` onwards with `access` and without a gap. Adds the leaves to
    // `leaves`.
    [[nodiscard]] bool adopt(Table& table, Gpa guest, Access access, std::uint64_t& leaves);
    // Whether the mirror translates all of `table` to `guest` onwards with `access`.
    [[nodiscard]] bool translates_to(const Table& table, Gpa guest, Access access) const;
    // Takes `table` and all below it out of the mirror. Emits nothing.
    void drop(Table& table);

    SyncRun& run_;
    DomainLeaves& leaves_;
    DeltaBuilder& delta_;
};

}  // namespace umbra::shadow
