// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/host_tally.h"

#include <utility>

namespace umbra::shadow {

HostTally::~HostTally() {
    withdraw_from(*sinks_[1]);
}

void HostTally::withdraw_from(telemetry::HostCounters& sink) const {
    sink.live_mappings -= share_.live_mappings;
    sink.pinned_bytes -= share_.pinned_bytes;
    sink.missing_leaves -= share_.missing_leaves;
}

void HostTally::join(telemetry::HostCounters& domain) {
    domain.live_mappings += share_.live_mappings;
    domain.pinned_bytes += share_.pinned_bytes;
    domain.missing_leaves += share_.missing_leaves;
    sinks_[2] = &domain;
}

void HostTally::leave() {
    withdraw_from(*std::exchange(sinks_[2], nullptr));
}

void HostTally::all_went_but(std::uint64_t mappings, std::uint64_t bytes) {
    counts_.live_mappings = mappings - share_.live_mappings;
    counts_.pinned_bytes = bytes - share_.pinned_bytes;
    counts_.unmap.bytes = share_.pinned_bytes - bytes;
}

void HostTally::all_lost() {
    counts_.live_mappings = 0 - share_.live_mappings;
    counts_.pinned_bytes = 0 - share_.pinned_bytes;
}

void HostTally::apply(std::uint64_t missing_leaves) {
    counts_.missing_leaves = missing_leaves - share_.missing_leaves;
    for (telemetry::HostCounters* sink : sinks_) {
        if (sink != nullptr) {
            *sink += counts_;
        }
    }
    share_.live_mappings += counts_.live_mappings;
    share_.pinned_bytes += counts_.pinned_bytes;
    share_.missing_leaves = missing_leaves;
    counts_ = {};
}

}  // namespace umbra::shadow
