// SPDX-License-Identifier: GPL-2.0-or-later
//
// The leaves, and runs of leaves, that one host has in other pieces than the domain counts, because
// there are IOVAs that this host cannot map. A removal counts for all hosts of the domain; what is
// remembered here says how many of the mappings this host really had.
//
// Each entry is mapped as a whole: all of its usable pieces are on the host.
//
// Threading: one thread at a time.
#pragma once

#include <cstdint>
#include <map>

#include "plugin/shadow/stuck_unmaps.h"
#include "plugin/vtd/types.h"

namespace umbra::shadow {

class CutMappings {
  public:
    using Mappings = StuckUnmaps::Mappings;
    // What the domain counts for a range, and what the host has there.
    struct Count {
        Mappings counted;
        Mappings on_host;
    };
    // Whether any entry was cut for a hole of the host's own.
    [[nodiscard]] bool any_host_hole() const { return host_holes_ != 0; }

    [[nodiscard]] bool empty() const { return entries_.empty(); }
    void clear() {
        entries_.clear();
        host_holes_ = 0;
    }
    // The leaves in `range` were mapped. `host_hole`: they reach into a hole of the host's own.
    void add(IovaRange range, Count count, bool host_hole) {
        entries_[range.first] = {range.last, count, host_hole};
        host_holes_ += host_hole ? 1 : 0;
    }
    // The entries inside `range` go. Returns their sum.
    [[nodiscard]] Count take_out(IovaRange range) {
        Count sum;
        auto entry = entries_.lower_bound(range.first);
        while (entry != entries_.end() && entry->second.last <= range.last) {
            const Count& count = entry->second.count;
            sum.counted.count += count.counted.count;
            sum.counted.bytes += count.counted.bytes;
            sum.on_host.count += count.on_host.count;
            sum.on_host.bytes += count.on_host.bytes;
            host_holes_ -= entry->second.host_hole ? 1 : 0;
            entry = entries_.erase(entry);
        }
        return sum;
    }

  private:
    struct Entry {
        Iova last;
        Count count;
        bool host_hole = false;
    };
    std::map<Iova, Entry> entries_;  // by first IOVA; without overlap
    std::uint64_t host_holes_ = 0;
};

}  // namespace umbra::shadow
