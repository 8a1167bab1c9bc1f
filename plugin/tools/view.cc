// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/tools/view.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <map>
#include <string_view>

#include "plugin/telemetry/distribution.h"
#include "plugin/telemetry/schema.h"
#include "plugin/tools/samples.h"

namespace umbra::tools {
namespace {

namespace snapshot = telemetry::snapshot;
using telemetry::quantile;
using telemetry::schema::Field;
using telemetry::schema::Record;

template <class... Arguments>
std::string format(const char* pattern, Arguments... arguments) {
    std::array<char, 256> text{};
    std::snprintf(text.data(), text.size(), pattern, arguments...);
    return text.data();
}

std::string right(const std::string& text, std::size_t width) {
    return text.size() < width ? std::string(width - text.size(), ' ') + text : text;
}

std::string left(const std::string& text, std::size_t width) {
    return text.size() < width ? text + std::string(width - text.size(), ' ') : text;
}

// What QEMU's operator chose, and a stream may hold anything.
std::string printable(std::string_view text) {
    std::string safe;
    for (const char letter : text) {
        safe += letter >= ' ' && letter <= '~' ? letter : '?';
    }
    return safe;
}

// "1,234,567"
std::string grouped(std::uint64_t value) {
    const std::string digits = std::to_string(value);
    std::string text;
    for (std::size_t i = 0; i < digits.size(); ++i) {
        if (i > 0 && (digits.size() - i) % 3 == 0) {
            text += ',';
        }
        text += digits[i];
    }
    return text;
}

std::string bytes(std::uint64_t value) {
    constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
    auto scaled = static_cast<double>(value);
    std::size_t unit = 0;
    for (; scaled >= 1024 && unit + 1 < kUnits.size(); ++unit) {
        scaled /= 1024;
    }
    return format(unit == 0 ? "%.0f %s" : "%.1f %s", scaled, kUnits.at(unit));
}

std::string duration(std::uint64_t nanoseconds) {
    const auto value = static_cast<double>(nanoseconds);
    if (nanoseconds < 1'000) {
        return format("%.0f ns", value);
    }
    if (nanoseconds < 1'000'000) {
        return format("%.1f us", value / 1e3);
    }
    return nanoseconds < 1'000'000'000 ? format("%.1f ms", value / 1e6)
                                       : format("%.1f s", value / 1e9);
}

std::string time_of(const snapshot::Snapshot& now) {
    const auto seconds = static_cast<std::time_t>(now.taken_unix_ns / 1'000'000'000);
    std::tm broken{};
    std::array<char, 32> text{};
    ::gmtime_r(&seconds, &broken);
    return std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S UTC", &broken) > 0
               ? text.data()
               : "";
}

std::uint64_t per_second(std::uint64_t change, double seconds) {
    constexpr double kMost = 1e18;
    const double rate = seconds > 0 ? static_cast<double>(change) / seconds : 0;
    return static_cast<std::uint64_t>(std::llround(std::min(rate, kMost)));
}

class Page {
  public:
    explicit Page(const Moment& moment) : moment_(moment) {}

    std::vector<std::string> take() {
        const snapshot::Snapshot& now = moment_.now;
        std::string title = "umbra-stat  " + printable(now.unit) + "  " + time_of(now);
        if (moment_.seconds > 0) {
            title += format("  over %.1f s", moment_.seconds);
        }
        if (now.snapshots_dropped > 0) {
            title += "  (" + grouped(now.snapshots_dropped) + " snapshots dropped)";
        }
        lines_ = {title, ""};
        heading("invalidations");
        kinds();
        heading("host");
        host();
        latencies();
        domains();
        devices();
        return std::move(lines_);
    }

  private:
    static constexpr std::size_t kName = 26;
    static constexpr std::size_t kNumber = 16;

    void heading(const std::string& name) {
        std::string line = left(name, kName) + right("total", kNumber);
        if (moment_.seconds > 0) {
            line += right("per second", kNumber);
        }
        lines_.push_back(line);
    }
    void number(const std::string& name, std::uint64_t total, std::uint64_t change,
                bool always = true) {
        if (!always && total == 0) {
            return;
        }
        std::string line = left("  " + name, kName) + right(grouped(total), kNumber);
        if (moment_.seconds > 0) {
            line += right(grouped(per_second(change, moment_.seconds)), kNumber);
        }
        lines_.push_back(line);
    }

    void kinds() {
        const snapshot::Invalidations& total = moment_.now.invalidations;
        const snapshot::Invalidations& change = moment_.change.invalidations;
        const Record queue = snapshot::record(total.queue);
        for (const Field& field : queue.fields()) {
            number(std::string(field.name),
                   queue.integer(field) + snapshot::record(total.registers).integer(field),
                   snapshot::record(change.queue).integer(field) +
                       snapshot::record(change.registers).integer(field),
                   field.name.starts_with("iotlb"));
        }
        number("wait descriptors", moment_.now.queue.wait_descriptors,
               moment_.change.queue.wait_descriptors);
        number("IOTLB hits", moment_.now.iotlb.hits, moment_.change.iotlb.hits, false);
        number("IOTLB misses", moment_.now.iotlb.misses, moment_.change.iotlb.misses, false);
        number("faults recorded", moment_.now.faults.recorded, moment_.change.faults.recorded,
               false);
    }

    void host() {
        const snapshot::Shadow& now = moment_.now.shadow;
        const snapshot::Shadow& change = moment_.change.shadow;
        number("table pages compared", now.sync.tables_compared, change.sync.tables_compared);
        number("entries changed", now.sync.entries_changed, change.sync.entries_changed);
        number("map calls", now.host.map.calls, change.host.map.calls);
        number("unmap calls", now.host.unmap.calls, change.host.unmap.calls);
        number("calls refused", now.host.map.failures + now.host.unmap.failures,
               change.host.map.failures + change.host.unmap.failures, false);
        number("splits", now.host.splits, change.host.splits, false);
        number("leaves missing on the host", now.host.missing_leaves, 0, false);
        lines_.push_back("  " + grouped(now.host.live_mappings) + " live mappings (peak " +
                         grouped(now.host.live_mappings_peak) + "), " +
                         bytes(now.host.pinned_bytes) + " pinned, mirror " +
                         bytes(now.sync.mirror_bytes));
        lines_.emplace_back();
    }

    static std::string quantiles(const snapshot::Histogram& histogram) {
        return right(duration(quantile(histogram, 0.5)), 10) +
               right(duration(quantile(histogram, 0.99)), 10);
    }

    void latencies() {
        const Record all = snapshot::record(moment_.change.shadow.latency);
        std::vector<std::string> rows;
        for (const Field& field : all.fields()) {
            const auto& latency =
                *static_cast<const snapshot::SyncLatency*>(all.record(field).data());
            if (latency.total.count > 0) {
                rows.push_back(left("  " + std::string(field.name), 12) +
                               right(grouped(latency.total.count), 12) +
                               quantiles(latency.compare) + quantiles(latency.host) +
                               quantiles(latency.wait));
            }
        }
        if (rows.empty()) {
            return;
        }
        lines_.push_back(left("syncs by", 12) + right("count", 12) +
                         "   compare p50, p99       host p50, p99       wait p50, p99");
        lines_.insert(lines_.end(), rows.begin(), rows.end());
        const snapshot::Histogram& hold = moment_.change.shadow.lock_hold;
        if (hold.count > 0) {
            lines_.push_back(left("  lock held", 12) + right(grouped(hold.count), 12) +
                             std::string(40, ' ') + quantiles(hold));
        }
        lines_.emplace_back();
    }

    // Rates if there are any, else totals.
    [[nodiscard]] std::string cell(std::uint64_t change) const {
        return right(grouped(moment_.seconds > 0 ? per_second(change, moment_.seconds) : change),
                     11);
    }

    void domains() {
        struct Row {
            const snapshot::Domain* guest = nullptr;
            std::vector<const snapshot::ShadowDomain*> shadows;
        };
        std::map<std::uint64_t, Row> rows;
        for (const snapshot::Domain& domain : moment_.change.domains) {
            rows[domain.domain].guest = &domain;
        }
        for (const snapshot::ShadowDomain& domain : moment_.change.shadow.domains) {
            rows[domain.domain].shadows.push_back(&domain);
        }
        if (rows.empty()) {
            return;
        }
        lines_.push_back(std::string("domain     DSI") + right("PSI", 11) + right("misses", 11) +
                         right("changed", 11) + right("maps", 11) + right("unmaps", 11) +
                         right("live", 11) + right("pinned", 11) + right("devices", 9));
        for (const auto& [id, row] : rows) {
            std::uint64_t changed = 0;
            std::uint64_t maps = 0;
            std::uint64_t unmaps = 0;
            std::uint64_t live = 0;
            std::uint64_t pinned = 0;
            std::uint64_t count = 0;
            for (const snapshot::ShadowDomain* shadow : row.shadows) {
                changed += shadow->sync.entries_changed;
                maps += shadow->host.map.calls;
                unmaps += shadow->host.unmap.calls;
                live += shadow->host.live_mappings;
                pinned += shadow->host.pinned_bytes;
                count += shadow->devices;
            }
            const snapshot::Domain guest = row.guest != nullptr ? *row.guest : snapshot::Domain{};
            lines_.push_back(left(std::to_string(id), 3) + cell(guest.domain_invalidations) +
                             cell(guest.page_invalidations) + cell(guest.iotlb_misses) +
                             cell(changed) + cell(maps) + cell(unmaps) + right(grouped(live), 11) +
                             right(bytes(pinned), 11) + right(std::to_string(count), 9));
        }
        omitted(moment_.now.domains_omitted, "domains");
        lines_.emplace_back();
    }

    void devices() {
        const snapshot::Shadow& change = moment_.change.shadow;
        if (change.devices.empty()) {
            return;
        }
        lines_.push_back(left("device", 10) + left("mode", 14) + right("domain", 8) +
                         right("maps", 11) + right("unmaps", 11) + right("refused", 11) +
                         right("live", 11) + right("pinned", 11));
        const Field& mode = *std::ranges::find(snapshot::schema_of<snapshot::ShadowDevice>().fields,
                                               "mode", &Field::name);
        for (const snapshot::ShadowDevice& device : change.devices) {
            const bool translated =
                device.mode == static_cast<std::uint64_t>(snapshot::Mode::translated);
            lines_.push_back(left(source_text(device.source), 10) +
                             left(std::string(telemetry::value_name(mode, device.mode)), 14) +
                             right(translated ? std::to_string(device.domain) : "-", 8) +
                             cell(device.host.map.calls) + cell(device.host.unmap.calls) +
                             cell(device.host.map.failures + device.host.unmap.failures) +
                             right(grouped(device.host.live_mappings), 11) +
                             right(bytes(device.host.pinned_bytes), 11));
        }
        omitted(moment_.now.shadow.devices_omitted, "devices");
    }

    void omitted(std::uint64_t count, const std::string& what) {
        if (count > 0) {
            lines_.push_back("  and " + grouped(count) + " more " + what);
        }
    }

    const Moment& moment_;
    std::vector<std::string> lines_;
};

}  // namespace

std::vector<std::string> page(const Moment& moment) {
    return Page(moment).take();
}

std::string line_heading() {
    return left("time", 23) + right("GI/s", 8) + right("DSI/s", 9) + right("PSI/s", 9) +
           right("maps/s", 9) + right("unmaps/s", 9) + right("held p50", 10) +
           right("held p99", 10) + right("live", 10) + right("pinned", 11);
}

std::string line(const Moment& moment) {
    const snapshot::Snapshot& change = moment.change;
    const auto rate = [&](std::uint64_t value) {
        return grouped(per_second(value, moment.seconds));
    };
    const snapshot::InvalidationKinds& queue = change.invalidations.queue;
    const snapshot::InvalidationKinds& registers = change.invalidations.registers;
    return left(time_of(moment.now), 23) +
           right(rate(queue.iotlb_global + registers.iotlb_global), 8) +
           right(rate(queue.iotlb_domain + registers.iotlb_domain), 9) +
           right(rate(queue.iotlb_page + registers.iotlb_page), 9) +
           right(rate(change.shadow.host.map.calls), 9) +
           right(rate(change.shadow.host.unmap.calls), 9) +
           right(duration(quantile(change.shadow.lock_hold, 0.5)), 10) +
           right(duration(quantile(change.shadow.lock_hold, 0.99)), 10) +
           right(grouped(moment.now.shadow.host.live_mappings), 10) +
           right(bytes(moment.now.shadow.host.pinned_bytes), 11);
}

}  // namespace umbra::tools
