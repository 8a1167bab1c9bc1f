// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/bridge/snapshot.h"

#include <string>

#include "plugin/vtd/fault_reason.h"

namespace umbra::bridge {
namespace {

namespace snapshot = telemetry::snapshot;
using shadow::DmaMode;

void add_fault_reasons(snapshot::Faults& to, const vtd::Counters& counters) {
    for (std::size_t code = 0; code < vtd::kFaultReasonCodes; ++code) {
        const auto reason = static_cast<vtd::FaultReason>(code);
        if (const std::uint64_t count = counters.fault(reason).value(); count > 0) {
            to.reasons.push_back(
                {.key = std::string(vtd::fault_reason_name(reason)), .value = count});
        }
    }
}

// Domains, and the sums over all of them, listed or not.
void add_domains(snapshot::Snapshot& to, const vtd::Counters& counters) {
    counters.domains.for_each([&](DomainId id, const vtd::DomainCounters& domain) {
        snapshot::Domain listed{.domain = static_cast<std::uint16_t>(id)};
        fill(listed, domain);
        to.iotlb.hits += listed.iotlb_hits;
        to.iotlb.misses += listed.iotlb_misses;
        if (to.domains.size() == kMostListed) {
            ++to.domains_omitted;
            return;
        }
        to.domains.push_back(listed);
    });
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

void add_shadow_domain(snapshot::Shadow& to, const shadow::Manager::DomainView& view) {
    if (to.domains.size() == kMostListed) {
        ++to.domains_omitted;
        return;
    }
    snapshot::ShadowDomain& domain = to.domains.emplace_back();
    domain.domain = static_cast<std::uint16_t>(view.domain);
    domain.root = view.root.value();
    domain.levels = view.levels;
    domain.devices = view.devices;
    fill(domain, view.counters);
}

void add_shadow_device(snapshot::Shadow& to, const shadow::Manager::DeviceView& view) {
    if (to.devices.size() == kMostListed) {
        ++to.devices_omitted;
        return;
    }
    snapshot::ShadowDevice& device = to.devices.emplace_back();
    device.source = view.source.value();
    device.mode = static_cast<std::uint64_t>(mode_of(view.context.mode));
    device.domain = static_cast<std::uint16_t>(view.context.domain);
    fill(device, view.counters);
}

void add_shadow(snapshot::Shadow& to, const shadow::Manager& manager) {
    fill(to, manager.counters());
    manager.visit_domains([&to](const auto& view) { add_shadow_domain(to, view); });
    manager.visit_devices([&to](const auto& view) { add_shadow_device(to, view); });
}

}  // namespace

snapshot::Snapshot take_snapshot(const UmbraSnapshotStamp& stamp, const SnapshotTimes& times,
                                 const vtd::Counters& counters, const shadow::Manager& manager) {
    snapshot::Snapshot made;
    made.version = 1;
    made.unit = stamp.unit;
    made.sequence = stamp.sequence;
    made.interval_ns = stamp.interval_ns;
    made.snapshots_dropped = stamp.dropped;
    made.taken_unix_ns = times.taken_unix_ns;
    made.taken_ns = times.taken_ns;
    made.counting_since_ns = times.counting_since_ns;
    fill(made, counters);
    add_fault_reasons(made.faults, counters);
    add_domains(made, counters);
    add_shadow(made.shadow, manager);
    return made;
}

}  // namespace umbra::bridge
