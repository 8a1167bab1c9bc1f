// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/bridge/snapshot.h"

#include <string>

#include "plugin/telemetry/distribution.h"
#include "plugin/telemetry/shadow_counters.h"
#include "plugin/vtd/fault_reason.h"

namespace umbra {
namespace {

namespace snapshot = telemetry::snapshot;
using shadow::DmaMode;
using telemetry::distribution;
using telemetry::SyncTrigger;
using telemetry::schema::Field;
using telemetry::schema::MutableRecord;

// The field with this name. umbra.proto has one for each name of the enumerations below; a test
// sees to that.
const Field* field_of(const MutableRecord& record, std::string_view name) {
    for (const Field& field : record.message().fields) {
        if (field.name == name) {
            return &field;
        }
    }
    return nullptr;
}

void set(const MutableRecord& record, std::string_view name, std::uint64_t value) {
    if (const Field* field = field_of(record, name)) {
        record.integer(*field) = value;
    }
}

snapshot::InvalidationKinds invalidations(const vtd::Counters& counters,
                                          vtd::InvalidationPath path) {
    snapshot::InvalidationKinds made;
    for (std::size_t k = 0; k < vtd::kInvalidationKinds; ++k) {
        const auto kind = static_cast<vtd::InvalidationKind>(k);
        set(snapshot::mutable_record(made), name_of(kind),
            counters.invalidation(kind, path).value());
    }
    return made;
}

snapshot::Queue queue(const vtd::Counters& counters) {
    snapshot::Queue made{
        .tail_writes = counters.tail_writes.value(),
        .wait_descriptors = counters.wait_descriptors.value(),
        .wait_status = counters.wait_status.value(),
        .wait_interrupt = counters.wait_interrupt.value(),
        .wait_fence = counters.wait_fence.value(),
        .wait_status_lost = counters.wait_status_lost.value(),
        .errors = {},
    };
    for (std::size_t e = 0; e < vtd::kQueueErrors; ++e) {
        const auto error = static_cast<vtd::QueueError>(e);
        set(snapshot::mutable_record(made.errors), name_of(error),
            counters.queue_error(error).value());
    }
    return made;
}

snapshot::Faults faults(const vtd::Counters& counters) {
    snapshot::Faults made{
        .recorded = counters.faults_recorded.value(),
        .overflowed = counters.faults_overflowed.value(),
        .collapsed = counters.faults_collapsed.value(),
        .suppressed = counters.faults_suppressed.value(),
        .reasons = {},
    };
    for (std::size_t code = 0; code < vtd::kFaultReasonCodes; ++code) {
        const auto reason = static_cast<vtd::FaultReason>(code);
        if (const std::uint64_t count = counters.fault(reason).value(); count > 0) {
            made.reasons.push_back(
                {.key = std::string(vtd::fault_reason_name(reason)), .value = count});
        }
    }
    return made;
}

// Domains, and the sums over all of them, listed or not.
void add_domains(snapshot::Snapshot& to, const vtd::Counters& counters) {
    counters.domains.for_each([&](DomainId id, const vtd::DomainCounters& domain) {
        const std::uint64_t hits = domain.iotlb_hits.value();
        const std::uint64_t misses = domain.iotlb_misses.value();
        to.iotlb.hits += hits;
        to.iotlb.misses += misses;
        if (to.domains.size() == kMostListed) {
            ++to.domains_omitted;
            return;
        }
        to.domains.push_back({
            .domain = static_cast<std::uint16_t>(id),
            .iotlb_hits = hits,
            .iotlb_misses = misses,
            .domain_invalidations = domain.domain_invalidations.value(),
            .page_invalidations = domain.page_invalidations.value(),
            .pages_invalidated = domain.pages_invalidated.value(),
            .faults = domain.faults.value(),
        });
    });
}

snapshot::SyncCounters sync_counters(const telemetry::SyncCounters& sync) {
    snapshot::SyncCounters made{
        .syncs = {},
        .tables_compared = sync.tables_compared,
        .tables_skipped = sync.tables_skipped,
        .entries_changed = sync.entries_changed,
        .leaves_mapped = sync.leaves_mapped,
        .leaves_unmapped = sync.leaves_unmapped,
        .pages_mapped = sync.pages_mapped,
        .pages_unmapped = sync.pages_unmapped,
        .resizes = sync.resizes,
        .invalid_entries = sync.invalid_entries,
        .not_ram = sync.not_ram,
        .refused_mappings = sync.refused_mappings,
        .refused_tables = sync.refused_tables,
        .loops = sync.loops,
        .tables = sync.tables,
        .tables_peak = sync.tables_peak,
        .leaves = sync.leaves,
        .leaves_peak = sync.leaves_peak,
        .mirror_bytes = sync.mirror_bytes,
    };
    for (std::size_t t = 0; t < telemetry::kSyncTriggers; ++t) {
        set(snapshot::mutable_record(made.syncs), telemetry::name(static_cast<SyncTrigger>(t)),
            sync.syncs[t]);
    }
    return made;
}

snapshot::HostCounters host_counters(const telemetry::HostCounters& host) {
    return {
        .map = {.calls = host.map_calls,
                .bytes = host.bytes_mapped,
                .failures = host.map_failures,
                .retries = host.map_retries},
        .unmap = {.calls = host.unmap_calls,
                  .bytes = host.bytes_unmapped,
                  .failures = host.unmap_failures,
                  .retries = host.unmap_retries},
        .splits = host.splits,
        .live_mappings = host.live_mappings,
        .live_mappings_peak = host.live_mappings_peak,
        .pinned_bytes = host.pinned_bytes,
        .missing_leaves = host.missing_leaves,
    };
}

// The latencies have one member a trigger, all of the same type.
snapshot::SyncLatency& latency_of(snapshot::SyncLatencies& latencies, SyncTrigger trigger) {
    switch (trigger) {
        case SyncTrigger::global:
            return latencies.global;
        case SyncTrigger::domain:
            return latencies.domain;
        case SyncTrigger::page:
            return latencies.page;
        case SyncTrigger::context:
            return latencies.context;
        case SyncTrigger::attach:
            return latencies.attach;
        case SyncTrigger::replay:
            return latencies.replay;
        case SyncTrigger::memory:
            break;
    }
    return latencies.memory;
}

snapshot::Mode mode_of(DmaMode mode) {
    switch (mode) {
        case DmaMode::translated:
            return snapshot::Mode::translated;
        case DmaMode::pass_through:
            return snapshot::Mode::pass_through;
        case DmaMode::blocked:
            break;
    }
    return snapshot::Mode::blocked;
}

snapshot::Shadow shadow_of(const shadow::Manager& manager) {
    const telemetry::UnitShadowCounters& unit = manager.counters();
    snapshot::Shadow made;
    made.sync = sync_counters(unit.sync);
    made.host = host_counters(unit.host);
    for (std::size_t t = 0; t < telemetry::kSyncTriggers; ++t) {
        latency_of(made.latency, static_cast<SyncTrigger>(t)) = {
            .compare = distribution(unit.latency[t].compare_ns),
            .host = distribution(unit.latency[t].host_ns),
            .total = distribution(unit.latency[t].total_ns),
        };
    }
    made.lock_hold = distribution(unit.hold_ns);
    manager.visit_domains([&made](const shadow::Manager::DomainView& view) {
        if (made.domains.size() == kMostListed) {
            ++made.domains_omitted;
            return;
        }
        made.domains.push_back({
            .domain = static_cast<std::uint16_t>(view.domain),
            .root = view.root.value(),
            .levels = view.levels,
            .devices = view.devices,
            .sync = sync_counters(view.counters.sync),
            .host = host_counters(view.counters.host),
        });
    });
    manager.visit_devices([&made](const shadow::Manager::DeviceView& view) {
        if (made.devices.size() == kMostListed) {
            ++made.devices_omitted;
            return;
        }
        made.devices.push_back({
            .source = view.source.value(),
            .mode = static_cast<std::uint64_t>(mode_of(view.context.mode)),
            .domain = static_cast<std::uint16_t>(view.context.domain),
            .attaches = view.counters.attaches,
            .detaches = view.counters.detaches,
            .host = host_counters(view.counters.host),
        });
    });
    return made;
}

}  // namespace

snapshot::Snapshot take_snapshot(const SnapshotStamp& stamp, const vtd::Counters& counters,
                                 const shadow::Manager& manager) {
    snapshot::Snapshot made;
    made.version = 1;
    made.unit = stamp.unit;
    made.sequence = stamp.sequence;
    made.interval_ns = stamp.interval_ns;
    made.snapshots_dropped = stamp.dropped;
    made.taken_unix_ns = stamp.taken_unix_ns;
    made.taken_ns = stamp.taken_ns;
    made.counting_since_ns = stamp.counting_since_ns;
    made.invalidations = {.queue = invalidations(counters, vtd::InvalidationPath::queue),
                          .registers = invalidations(counters, vtd::InvalidationPath::registers)};
    made.register_commands_refused = counters.register_commands_refused.value();
    made.queue = queue(counters);
    made.faults = faults(counters);
    add_domains(made, counters);
    made.shadow = shadow_of(manager);
    return made;
}

}  // namespace umbra
