// SPDX-License-Identifier: GPL-2.0-or-later
//
// How one device's host calls get into the telemetry of the device, of its domain and of the unit.
// Changes are gathered over a piece of work and then added to all three.
//
// A gauge of a domain or unit is a sum over devices. So the tally remembers the device's share of
// each gauge, and takes the share along when the device leaves. Counters are written here and never
// read for a decision: somebody may have cleared them.
//
// Threading: one thread at a time.
#pragma once

#include <array>
#include <cstdint>

#include "counter_types.h"

namespace umbra::shadow {

class HostTally {
  public:
    // Both outlive the tally.
    HostTally(telemetry::HostCounters& device, telemetry::HostCounters& unit)
        : sinks_{&device, &unit, nullptr} {}
    // Takes the device's share out of the unit's gauges.
    ~HostTally();
    HostTally(const HostTally&) = delete;
    HostTally& operator=(const HostTally&) = delete;

    // ---- Coming and going ----
    // At each of these calls, every gathered change has been applied.

    // `domain` outlives the device's stay in it. The device's share of the gauges comes along.
    void join(telemetry::HostCounters& domain);
    void leave();

    // ---- Gathering ----

    void map_calls(std::uint64_t calls) { counts_.map.calls += calls; }
    void map_failure() { ++counts_.map.failures; }
    void map_retry() { ++counts_.map.retries; }
    void unmap_call() { ++counts_.unmap.calls; }
    void unmap_failure() { ++counts_.unmap.failures; }
    void unmap_retry() { ++counts_.unmap.retries; }
    void split() { ++counts_.splits; }
    void iova_hole() { ++counts_.iova_holes; }

    // So many mappings, of so many bytes together, came by map calls.
    void came(std::uint64_t mappings, std::uint64_t bytes) {
        counts_.map.bytes += bytes;
        counts_.live_mappings += mappings;
        counts_.pinned_bytes += bytes;
    }
    // So many mappings, of so many bytes together, went by unmap calls.
    void went(std::uint64_t mappings, std::uint64_t bytes) {
        counts_.unmap.bytes += bytes;
        counts_.live_mappings -= mappings;
        counts_.pinned_bytes -= bytes;
    }
    // So many of the mappings that went() counts, before or after this call, were not there.
    void were_not_there(std::uint64_t mappings, std::uint64_t bytes) {
        counts_.unmap.bytes -= bytes;
        counts_.live_mappings += mappings;
        counts_.pinned_bytes += bytes;
    }
    // `before` mappings count as `after` from here on, without any host call.
    void became(std::uint64_t before, std::uint64_t after) {
        counts_.live_mappings -= before - after;
    }
    // Everything but these went by unmap calls, whatever was gathered about it.
    void all_went_but(std::uint64_t mappings, std::uint64_t bytes);
    // Everything went without a call.
    void all_lost();

    // ---- Telling ----

    // Adds what was gathered to all counters. The device misses `missing_leaves` leaves.
    void apply(std::uint64_t missing_leaves);

  private:
    // The device's share of the gauges.
    struct Share {
        std::uint64_t live_mappings = 0;
        std::uint64_t pinned_bytes = 0;
        std::uint64_t missing_leaves = 0;
    };

    void withdraw_from(telemetry::HostCounters& sink) const;

    std::array<telemetry::HostCounters*, 3> sinks_;  // device, unit, domain (null without one)
    Share share_;
    telemetry::HostCounters counts_;  // gathered; gauges are changes, modulo 2^64
};

}  // namespace umbra::shadow
