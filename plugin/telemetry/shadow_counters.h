// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the shadow counts: per unit since it exists, per guest domain since the domain got its first
// device, per device since it was added. Plain numbers, written by the thread that drives the
// shadow only (QEMU: under the big lock); take a copy there to read them elsewhere.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "plugin/telemetry/histogram.h"

namespace umbra::telemetry {

// What made a sync necessary.
enum class SyncTrigger : std::uint8_t {
    global,   // global IOTLB invalidation (GI)
    domain,   // domain-selective IOTLB invalidation (DSI)
    page,     // page-selective IOTLB invalidations (PSI); those of a batch are one sync
    context,  // translation or the root table changed
    attach,   // a device came to the domain
    replay,   // a host mapper lost everything and gets it again
    memory,   // guest RAM moved in the host; guest tables are not looked at
};
inline constexpr std::size_t kSyncTriggers = 7;
[[nodiscard]] constexpr const char* name(SyncTrigger trigger) {
    constexpr std::array<const char*, kSyncTriggers> kNames = {
        "global", "domain", "page", "context", "attach", "replay", "memory"};
    return kNames[static_cast<std::size_t>(trigger)];
}

// Looking at guest tables. Independent of the number of devices.
struct SyncCounters {
    std::array<std::uint64_t, kSyncTriggers> syncs{};
    std::uint64_t tables_compared = 0;
    std::uint64_t tables_skipped = 0;   // nothing present in either copy: guest side only looked at
    std::uint64_t entries_changed = 0;  // table entries that differed from the mirror
    std::uint64_t leaves_mapped = 0;    // leaf entries that came to be wanted on the host
    std::uint64_t leaves_unmapped = 0;
    std::uint64_t pages_mapped = 0;  // the same in 4 KiB pages
    std::uint64_t pages_unmapped = 0;
    // Large leaves of which a part changed: replaced by smaller ones (or smaller ones by it) that
    // do not all translate to the same, or crossing a border of guest RAM that moved. What did not
    // change is unmapped for a moment with the rest.
    std::uint64_t resizes = 0;
    std::uint64_t invalid_entries = 0;   // entries with reserved bits set, or tables not in RAM
    std::uint64_t not_ram = 0;           // leaves that lie, whole or in part, at no RAM
    std::uint64_t refused_mappings = 0;  // leaves, or tables of leaves, beyond max-mappings
    std::uint64_t refused_tables = 0;    // tables beyond max-tables
    std::uint64_t loops = 0;             // tables that are their own ancestor, not followed

    // As of now.
    std::uint64_t leaves = 0;
    std::uint64_t leaves_peak = 0;
    std::uint64_t tables = 0;
    std::uint64_t tables_peak = 0;
    std::uint64_t mirror_bytes = 0;  // copies of tables and what describes them
};

// Calls to host mappers.
struct HostCounters {
    std::uint64_t map_calls = 0;  // successful or not
    std::uint64_t unmap_calls = 0;
    std::uint64_t bytes_mapped = 0;
    std::uint64_t bytes_unmapped = 0;
    std::uint64_t map_failures = 0;
    std::uint64_t unmap_failures = 0;
    std::uint64_t map_retries = 0;  // calls that try again what failed before
    std::uint64_t unmap_retries = 0;
    std::uint64_t splits = 0;  // coalesced mappings unmapped as a whole and mapped again in part

    // As of now.
    std::uint64_t live_mappings = 0;
    std::uint64_t live_mappings_peak = 0;
    std::uint64_t pinned_bytes = 0;
    std::uint64_t missing_leaves = 0;  // wanted, but not mapped on the host
};

struct SyncLatency {
    Histogram compare_ns;  // time spent on guest tables and on planning
    Histogram host_ns;     // time spent in host mappers
    Histogram total_ns;
};

struct DomainShadowCounters {
    SyncCounters sync;
    HostCounters host;  // summed over the domain's devices
};

struct DeviceShadowCounters {
    HostCounters host;
    std::uint64_t attaches = 0;  // times it came to a domain
    std::uint64_t detaches = 0;
};

struct UnitShadowCounters {
    SyncCounters sync;
    HostCounters host;
    std::array<SyncLatency, kSyncTriggers> latency;
    // How long the shadow kept its caller (QEMU: the big lock) at a time.
    Histogram hold_ns;
};

}  // namespace umbra::telemetry
