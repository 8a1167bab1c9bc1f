// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/shadow_json.h"

#include <array>
#include <cinttypes>
#include <cstdint>
#include <cstdio>

#include "plugin/qemu/json_writer.h"

namespace umbra {
namespace {

using shadow::Difference;
using shadow::DmaMode;
using shadow::HostMapping;
using telemetry::Histogram;
using telemetry::HostCounters;
using telemetry::SyncCounters;
using telemetry::SyncTrigger;

void write_sync(JsonWriter& out, const SyncCounters& sync) {
    out.open("syncs");
    for (std::size_t t = 0; t < telemetry::kSyncTriggers; ++t) {
        out.member(telemetry::name(static_cast<SyncTrigger>(t)), sync.syncs[t]);
    }
    out.close();
    out.member("tables-compared", sync.tables_compared);
    out.member("tables-skipped", sync.tables_skipped);
    out.member("entries-changed", sync.entries_changed);
    out.member("pages-mapped", sync.pages_mapped);
    out.member("pages-unmapped", sync.pages_unmapped);
    out.member("invalid-entries", sync.invalid_entries);
    out.member("not-ram", sync.not_ram);
    out.member("refused-mappings", sync.refused_mappings);
    out.member("refused-tables", sync.refused_tables);
    out.member("loops", sync.loops);
    out.member("tables", sync.tables);
    out.member("leaves", sync.leaves);
    out.member("leaves-peak", sync.leaves_peak);
    out.member("mirror-bytes", sync.mirror_bytes);
}

void write_host(JsonWriter& out, const HostCounters& host) {
    out.open("map");
    out.member("calls", host.map_calls);
    out.member("bytes", host.bytes_mapped);
    out.member("failures", host.map_failures);
    out.member("retries", host.map_retries);
    out.close();
    out.open("unmap");
    out.member("calls", host.unmap_calls);
    out.member("bytes", host.bytes_unmapped);
    out.member("failures", host.unmap_failures);
    out.member("retries", host.unmap_retries);
    out.close();
    out.member("splits", host.splits);
    out.member("live-mappings", host.live_mappings);
    out.member("live-mappings-peak", host.live_mappings_peak);
    out.member("pinned-bytes", host.pinned_bytes);
    out.member("missing-leaves", host.missing_leaves);
}

void write_latency(JsonWriter& out, std::string_view name, const Histogram& histogram) {
    out.open(name);
    out.member("count", histogram.count());
    out.member("mean", histogram.count() == 0 ? 0 : histogram.sum() / histogram.count());
    out.member("p50", histogram.quantile(0.5));
    out.member("p90", histogram.quantile(0.9));
    out.member("p99", histogram.quantile(0.99));
    out.member("max", histogram.max());
    out.close();
}

std::string_view name_of(DmaMode mode) {
    switch (mode) {
        case DmaMode::translated:
            return "translated";
        case DmaMode::pass_through:
            return "pass-through";
        case DmaMode::blocked:
            break;
    }
    return "blocked";
}

std::string_view name_of(Access access) {
    constexpr std::array<std::string_view, 4> kNames = {"none", "read", "write", "read-write"};
    return kNames[static_cast<std::size_t>(access) & 3];
}

void write_address(JsonWriter& out, std::string_view name, std::uint64_t address) {
    std::array<char, 24> text{};
    std::snprintf(text.data(), text.size(), "0x%" PRIx64, address);
    out.member_string(name, text.data());
}

void write_side(JsonWriter& out, std::string_view name, const HostMapping& side) {
    out.open(name);
    write_address(out, "guest", side.guest.value());
    out.member_string("access", name_of(side.access));
    out.close();
}

}  // namespace

std::string shadow_statistics_json(const shadow::Manager& manager) {
    const telemetry::UnitShadowCounters& unit = manager.counters();
    JsonWriter out;
    out.open();
    write_sync(out, unit.sync);
    write_host(out, unit.host);
    out.open("latency");
    for (std::size_t t = 0; t < telemetry::kSyncTriggers; ++t) {
        out.open(telemetry::name(static_cast<SyncTrigger>(t)));
        write_latency(out, "compare", unit.latency[t].compare_ns);
        write_latency(out, "host", unit.latency[t].host_ns);
        write_latency(out, "total", unit.latency[t].total_ns);
        out.close();
    }
    out.close();
    write_latency(out, "lock-hold", unit.hold_ns);
    out.open_list("domains");
    manager.visit_domains([&out](const shadow::Manager::DomainView& view) {
        out.open();
        out.member("domain", static_cast<std::uint64_t>(view.domain));
        out.member("devices", view.devices);
        write_sync(out, view.counters.sync);
        write_host(out, view.counters.host);
        out.close();
    });
    out.close_list();
    out.open_list("devices");
    manager.visit_devices([&out](const shadow::Manager::DeviceView& view) {
        out.open();
        out.member("source", view.source.value());
        out.member_string("mode", name_of(view.context.mode));
        out.member("domain", static_cast<std::uint64_t>(view.context.domain));
        out.member("attaches", view.counters.attaches);
        out.member("detaches", view.counters.detaches);
        write_host(out, view.counters.host);
        out.close();
    });
    out.close_list();
    out.close();
    return out.take();
}

std::string verification_json(const shadow::Verification& verification) {
    JsonWriter out;
    out.open();
    out.member_bool("clean", verification.clean());
    out.member_bool("complete", verification.complete);
    out.member("domains", verification.domains);
    out.member("devices", verification.devices);
    out.member("pages-checked", verification.pages_checked);
    out.member("errors", verification.errors);
    out.member("pending", verification.pending);
    out.open_list("differences");
    for (const Difference& difference : verification.differences) {
        out.open();
        out.member_string("kind", difference.kind == Difference::Kind::error ? "error" : "pending");
        out.member("domain", static_cast<std::uint64_t>(difference.domain));
        out.member("source", difference.source.value());
        write_address(out, "iova", difference.expected.iova.value());
        out.member("bytes", difference.expected.bytes);
        write_side(out, "expected", difference.expected);
        write_side(out, "actual", difference.actual);
        out.close();
    }
    out.close_list();
    out.close();
    return out.take();
}

}  // namespace umbra
