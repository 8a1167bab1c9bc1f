// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/iova_holes.h"

#include "plugin/vtd/interrupt_range.h"

namespace umbra::shadow {
namespace {

constexpr IovaRange kInterrupts = {Iova(vtd::kInterruptRangeFirst), Iova(vtd::kInterruptRangeLast)};

}  // namespace

IovaHoles::IovaHoles(std::span<const IovaRange> host) {
    const auto add = [this](IovaRange range) {
        if (!holes_.empty() && holes_.back().range.last >= range.first) {
            IovaRange& before = holes_.back().range;
            before.last = std::max(before.last, range.last);
        } else {
            holes_.push_back({range, false});
        }
    };
    std::vector<IovaRange> ranges;
    for (const IovaRange& range : host) {
        if (!range.overlaps(kInterrupts)) {
            ranges.push_back(range);
            continue;
        }
        if (range.first < kInterrupts.first) {
            ranges.push_back({range.first, kInterrupts.first - 1});
        }
        if (range.last > kInterrupts.last) {
            ranges.push_back({kInterrupts.last + 1, range.last});
        }
    }
    std::sort(ranges.begin(), ranges.end(),
              [](IovaRange a, IovaRange b) { return a.first < b.first; });
    for (const IovaRange& range : ranges) {
        add(range);
    }
    const auto after = first_from(kInterrupts.first);
    holes_.insert(after, {kInterrupts, true});
}

std::optional<IovaRange> IovaHoles::host_hole_in(IovaRange range) const {
    for (auto hole = first_from(range.first);
         hole != holes_.end() && hole->range.first <= range.last; ++hole) {
        if (!hole->interrupts) {
            return IovaRange{std::max(hole->range.first, range.first),
                             std::min(hole->range.last, range.last)};
        }
    }
    return std::nullopt;
}

}  // namespace umbra::shadow
