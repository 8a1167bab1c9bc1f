// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/bench/device/report.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <string_view>

namespace umbra::bench {

namespace {

constexpr const char* kRow = "%-19s %8s %7s %-6s %-10s";

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

// Half of the distance between the quartiles as a share of the median.
std::string spread(const Summary& summary) {
    const double half = (summary.upper_quartile - summary.lower_quartile) / 2;
    return format(" +-%2.0f%%", summary.median > 0 ? half / summary.median * 100 : 0.0);
}

std::string with_spread(const Summary& summary) {
    return summary.samples > 0 ? duration(summary.median) + spread(summary) : "-";
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
        "{\"samples\": %zu, \"minimum\": %.4f, \"lower_quartile\": %.4f, \"median\": %.4f, "
        "\"upper_quartile\": %.4f, \"maximum\": %.4f}",
        summary.samples, summary.minimum, summary.lower_quartile, summary.median,
        summary.upper_quartile, summary.maximum);
}

void write_side(std::ostream& out, const Side& side) {
    out << quoted(side.viommu) << ": {\"calls\": " << format("%.3f", side.calls)
        << ", \"floor_ns\": " << format("%.1f", side.floor)
        << ", \"table_bytes\": " << side.memory.table_bytes
        << ", \"anonymous_bytes\": " << side.memory.anonymous_bytes
        << ", \"mirror_bytes\": " << side.memory.mirror_bytes << ",\n      \"time_ns\": ";
    write_summary(out, side.time);
    out << "}";
}

const Side* find_side(const Result& result, std::string_view viommu) {
    const auto found = std::ranges::find(result.sides, viommu, &Side::viommu);
    return found == result.sides.end() ? nullptr : &*found;
}

}  // namespace

const char* to_string(Sharing sharing) {
    return sharing == Sharing::one_domain ? "one" : "own";
}

const char* to_string(Layout layout) {
    return layout == Layout::contiguous ? "contiguous" : "fragmented";
}

void write_table_header(std::ostream& out, const Report& report) {
    out << report.qemu_version << "; " << report.processor << "; medians of " << report.turns
        << " turns, +- half the distance of the quartiles\n"
        << format(kRow, "case", "pages", "devices", "domain", "targets")
        << format(" %16s %16s %14s %9s %9s %9s %9s %16s\n", "intel-iommu", "umbra-viommu", "ratio",
                  "peer call", "own calls", "p. floor", "own floor", "memcmp of tables");
}

void write_table_row(std::ostream& out, const Result& result) {
    const Configuration& configuration = result.configuration;
    const Side* peer = find_side(result, "intel-iommu");
    const Side* own = find_side(result, "umbra-viommu");
    const auto cell = [](const Side* side, const std::string& text) {
        return side != nullptr ? text : std::string("-");
    };
    const auto calls = [&](const Side* side) {
        return cell(side, side != nullptr ? format("%.2f", side->calls) : "");
    };
    const auto floor = [&](const Side* side) {
        return cell(side, side != nullptr ? duration(side->floor) : "");
    };
    const auto time = [&](const Side* side) {
        return cell(side, side != nullptr ? with_spread(side->time) : "");
    };
    const std::string ratio = result.ratio.samples > 0
                                  ? format("%.1fx", result.ratio.median) + spread(result.ratio)
                                  : "-";
    out << format(kRow, result.name.c_str(), std::to_string(configuration.pages).c_str(),
                  std::to_string(configuration.devices).c_str(), to_string(configuration.sharing),
                  to_string(configuration.layout))
        << format(" %16s %16s %14s %9s %9s %9s %9s %16s", time(peer).c_str(), time(own).c_str(),
                  ratio.c_str(), calls(peer).c_str(), calls(own).c_str(), floor(peer).c_str(),
                  floor(own).c_str(), with_spread(result.compare).c_str())
        << std::endl;
}

void write_json(std::ostream& out, const Report& report) {
    out << "{\n  \"format\": \"umbra-device-bench-2\",\n  \"qemu\": " << quoted(report.qemu_version)
        << ",\n  \"processor\": " << quoted(report.processor) << ",\n  \"turns\": " << report.turns
        << ",\n  \"results\": [";
    for (std::size_t i = 0; i < report.results.size(); i++) {
        const Result& result = report.results[i];
        out << (i == 0 ? "\n" : ",\n") << R"(    {"case": )" << quoted(result.name)
            << R"(, "pages": )" << result.configuration.pages << R"(, "devices": )"
            << result.configuration.devices << R"(, "sharing": )"
            << quoted(to_string(result.configuration.sharing)) << R"(, "layout": )"
            << quoted(to_string(result.configuration.layout));
        for (const Side& side : result.sides) {
            out << ",\n     ";
            write_side(out, side);
        }
        if (result.ratio.samples > 0) {
            out << ",\n     \"ratio\": ";
            write_summary(out, result.ratio);
        }
        if (result.compare.samples > 0) {
            out << ",\n     \"memcmp_ns\": ";
            write_summary(out, result.compare);
        }
        if (result.by_compare.samples > 0) {
            out << ",\n     \"umbra_by_memcmp\": ";
            write_summary(out, result.by_compare);
        }
        if (result.by_one_device.samples > 0) {
            out << ",\n     \"umbra_by_one_device\": ";
            write_summary(out, result.by_one_device);
        }
        out << "}";
    }
    out << "\n  ]\n}\n";
}

}  // namespace umbra::bench
