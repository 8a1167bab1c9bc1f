// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/bench/device/report.h"

#include <array>
#include <cstdio>

namespace umbra::bench {

namespace {

constexpr const char* kRow = "%-22s %8s %7s %-6s %-10s";

template <class... Arguments>
std::string format(const char* pattern, Arguments... arguments) {
    std::array<char, 256> buffer{};
    const int length = std::snprintf(buffer.data(), buffer.size(), pattern, arguments...);
    return {buffer.data(), static_cast<std::size_t>(length)};
}

std::string duration(double ns) {
    if (ns < 1e3) {
        return format("%.0f ns", ns);
    }
    return ns < 1e6 ? format("%.2f us", ns / 1e3) : format("%.2f ms", ns / 1e6);
}

// Median, and half of the distance between the quartiles as a share of it.
std::string with_spread(const Summary& summary) {
    const double spread = summary.median > 0 ? (summary.upper_quartile - summary.lower_quartile) /
                                                   2 / summary.median * 100
                                             : 0;
    return duration(summary.median) + format(" +-%2.0f%%", spread);
}

std::string quoted(const std::string& text) {
    std::string result = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            result.push_back('\\');
        }
        if (static_cast<unsigned char>(c) >= 0x20) {
            result.push_back(c);
        }
    }
    return result + "\"";
}

void write_summary(std::ostream& out, const Summary& summary) {
    out << format(
        "{\"samples\": %zu, \"minimum_ns\": %.1f, \"lower_quartile_ns\": %.1f, "
        "\"median_ns\": %.1f, \"upper_quartile_ns\": %.1f, \"maximum_ns\": %.1f}",
        summary.samples, summary.minimum, summary.lower_quartile, summary.median,
        summary.upper_quartile, summary.maximum);
}

}  // namespace

const char* to_string(Sharing sharing) {
    return sharing == Sharing::one_domain ? "one" : "own";
}

const char* to_string(Layout layout) {
    return layout == Layout::contiguous ? "contiguous" : "fragmented";
}

void write_table_header(std::ostream& out, const Report& report) {
    out << report.qemu_version << "; " << report.processor << "; median of " << report.repetitions
        << " repetitions, +- half the distance of the quartiles\n"
        << format(kRow, "operation", "pages", "devices", "domain", "targets")
        << format(" %18s %18s %8s %10s %10s %18s\n", "intel-iommu", "umbra-viommu", "ratio",
                  "peer calls", "own calls", "memcmp of tables");
}

void write_table_row(std::ostream& out, const Result& result) {
    const Configuration& configuration = result.configuration;
    out << format(kRow, result.operation.c_str(), std::to_string(configuration.pages).c_str(),
                  std::to_string(configuration.devices).c_str(), to_string(configuration.sharing),
                  to_string(configuration.layout));
    for (const std::string viommu : {"intel-iommu", "umbra-viommu"}) {
        std::string cell = "-";
        for (const Side& side : result.sides) {
            if (side.viommu == viommu) {
                cell = with_spread(side.time);
            }
        }
        out << format(" %18s", cell.c_str());
    }
    if (result.sides.size() == 2 && result.sides[1].time.median > 0) {
        out << format(" %7.1fx %10.2f %10.2f",
                      result.sides[0].time.median / result.sides[1].time.median,
                      result.sides[0].calls, result.sides[1].calls);
    } else {
        out << format(" %8s %10.2f %10s", "-", result.sides.empty() ? 0 : result.sides[0].calls,
                      "-");
    }
    out << format(" %18s", result.compare.samples > 0 ? with_spread(result.compare).c_str() : "-")
        << std::endl;
}

void write_json(std::ostream& out, const Report& report) {
    out << "{\n  \"format\": \"umbra-device-bench-1\",\n  \"qemu\": " << quoted(report.qemu_version)
        << ",\n  \"processor\": " << quoted(report.processor)
        << ",\n  \"repetitions\": " << report.repetitions << ",\n  \"results\": [";
    for (std::size_t i = 0; i < report.results.size(); i++) {
        const Result& result = report.results[i];
        out << (i == 0 ? "\n" : ",\n") << R"(    {"operation": )" << quoted(result.operation)
            << R"(, "pages": )" << result.configuration.pages << R"(, "devices": )"
            << result.configuration.devices << R"(, "sharing": )"
            << quoted(to_string(result.configuration.sharing)) << R"(, "layout": )"
            << quoted(to_string(result.configuration.layout));
        for (const Side& side : result.sides) {
            out << ",\n     " << quoted(side.viommu)
                << ": {\"calls\": " << format("%.3f", side.calls) << ", \"time\": ";
            write_summary(out, side.time);
            out << "}";
        }
        if (result.compare.samples > 0) {
            out << ",\n     \"memcmp\": ";
            write_summary(out, result.compare);
        }
        out << "}";
    }
    out << "\n  ]\n}\n";
}

}  // namespace umbra::bench
