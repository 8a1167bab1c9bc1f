// SPDX-License-Identifier: GPL-2.0-or-later
//
// Turns the removals of a delta into as few unmap calls as the host's rules allow.
//
//   part   A removal, widened to whole host mappings. A removal can cut a mapping that was joined
//          from several leaves. Then the part covers all of that mapping.
//   rest   A stretch of a cut mapping that stays. It is unmapped with its part, and mapped again
//          right after the call. That is called a split. A large rest is mapped again as several
//          mappings: naturally aligned blocks, the smaller the nearer to the cut. The guest will
//          often cut there again, and only what shares a mapping with the next cut is away for a
//          moment then. So a mapping of n pages that goes page by page is mapped again log n times
//          in all, not n times, and grows into log n mappings.
//   call   One part or several. VFIO unmaps everything inside a range in one call, with few flushes
//          of the host's IOTLB. So parts with nothing live between them become one call.
//
// The memory is allocated once, and a plan is built anew for each delta.
//
// Threading: one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "plugin/shadow/delta.h"
#include "plugin/shadow/mirror.h"
#include "plugin/shadow/ram_snapshot.h"

namespace umbra::shadow {

struct UnmapPart {
    Iova iova;
    std::uint64_t bytes = 0;
    std::uint64_t mapped_bytes = 0;
    std::uint64_t mappings = 0;  // number of host mappings inside
    std::size_t first_rest = 0;  // in Plan::rests
    std::size_t rests = 0;

    [[nodiscard]] Iova end() const { return iova + bytes; }
};

struct UnmapCall {
    Iova iova;
    std::uint64_t bytes = 0;
    std::size_t first_part = 0;  // in Plan::parts
    std::size_t parts = 0;

    [[nodiscard]] Iova end() const { return iova + bytes; }
};

struct Rest {
    HostMapping mapping;
    bool first_of_mapping = false;  // the cut mapping began with this rest
};

class Plan {
  public:
    Plan();

    // `mirror` holds the leaves that stay; what it has between two removals is live.
    void build(std::span<const Removal> removals, const Mirror& mirror, const RamSnapshot& ram);

    [[nodiscard]] std::span<const UnmapCall> calls() const { return calls_; }
    [[nodiscard]] std::span<const UnmapPart> parts(const UnmapCall& call) const {
        return std::span(parts_).subspan(call.first_part, call.parts);
    }
    [[nodiscard]] std::span<const Rest> rests(const UnmapPart& part) const {
        return std::span(rests_).subspan(part.first_rest, part.rests);
    }

  private:
    void add_part(const Removal& removal, const Mirror& mirror, const RamSnapshot& ram);
    // The leaves from `first` to `end` stay.
    void add_rest(LeafRef first, Iova end, bool first_of_mapping, UnmapPart& part,
                  const Mirror& mirror, const RamSnapshot& ram);
    void join_parts(const Mirror& mirror);

    std::vector<UnmapCall> calls_;
    std::vector<UnmapPart> parts_;
    std::vector<Rest> rests_;
};

}  // namespace umbra::shadow
