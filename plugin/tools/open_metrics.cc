// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/tools/open_metrics.h"

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <map>
#include <vector>

#include "plugin/tools/samples.h"

namespace umbra::tools {
namespace {

using telemetry::schema::Unit;
using Labels = std::vector<std::pair<std::string, std::string>>;

// The bounds of buckets are powers of two, less the one nanosecond that makes them inclusive:
// 255 ns to 68.7 s. No bucket of the plugin's histograms lies on both sides of one.
constexpr unsigned kFirstBound = 8;
constexpr unsigned kLastBound = 36;

std::string underscored(std::string_view name) {
    std::string text(name);
    std::ranges::replace(text, '-', '_');
    return text;
}

std::string escaped(std::string_view text) {
    std::string out;
    for (const char letter : text) {
        if (letter == '\n') {
            out += "\\n";
        } else {
            if (letter == '"' || letter == '\\') {
                out += '\\';
            }
            out += letter;
        }
    }
    return out;
}

// Exact, which a double would not be.
std::string seconds(std::uint64_t nanoseconds) {
    constexpr std::uint64_t kPerSecond = 1'000'000'000;
    std::array<char, 40> text{};
    std::snprintf(text.data(), text.size(), "%" PRIu64 ".%09" PRIu64, nanoseconds / kPerSecond,
                  nanoseconds % kPerSecond);
    return text.data();
}

std::string number(std::uint64_t value, Unit unit) {
    return unit == Unit::nanoseconds ? seconds(value) : std::to_string(value);
}

std::string_view unit_name(Unit unit) {
    switch (unit) {
        case Unit::bytes:
            return "bytes";
        case Unit::nanoseconds:
            return "seconds";
        default:
            return "";
    }
}

std::string_view type_name(Sample::Kind kind) {
    switch (kind) {
        case Sample::Kind::counter:
            return "counter";
        case Sample::Kind::gauge:
            return "gauge";
        case Sample::Kind::state:
            return "stateset";
        case Sample::Kind::histogram:
            break;
    }
    return "histogram";
}

// The unit ends the name.
std::string family_of(const Sample& sample) {
    std::string name = "umbra_" + underscored(sample.name);
    if (sample.unit == Unit::nanoseconds && name.ends_with("_ns")) {
        name.resize(name.size() - 3);
    }
    const std::string unit(unit_name(sample.unit));
    if (!unit.empty() && !name.ends_with("_" + unit)) {
        name += "_" + unit;
    }
    return name;
}

std::string label_text(const Labels& labels) {
    std::string text;
    for (const auto& [name, value] : labels) {
        text += (text.empty() ? "{" : ",") + underscored(name) + "=\"" + escaped(value) + '"';
    }
    return text.empty() ? text : text + "}";
}

Labels with(const Labels& labels, std::string name, std::string value) {
    Labels more = labels;
    more.emplace_back(std::move(name), std::move(value));
    return more;
}

void write_line(std::string& out, const std::string& name, const Labels& labels,
                const std::string& value) {
    out += name + label_text(labels) + " " + value + "\n";
}

std::uint64_t sum_up_to(const telemetry::snapshot::Histogram& histogram, std::uint64_t bound) {
    std::uint64_t sum = 0;
    for (const telemetry::snapshot::Bucket& bucket : histogram.buckets) {
        if (bucket.up_to <= bound) {
            sum += bucket.count;
        }
    }
    return sum;
}

void write_histogram(std::string& out, const std::string& family, const Sample& sample) {
    for (unsigned power = kFirstBound; power <= kLastBound; ++power) {
        const std::uint64_t bound = (std::uint64_t{1} << power) - 1;
        write_line(out, family + "_bucket", with(sample.labels, "le", seconds(bound)),
                   std::to_string(sum_up_to(*sample.histogram, bound)));
    }
    const std::string count = std::to_string(sum_up_to(*sample.histogram, UINT64_MAX));
    write_line(out, family + "_bucket", with(sample.labels, "le", "+Inf"), count);
    write_line(out, family + "_count", sample.labels, count);
    write_line(out, family + "_sum", sample.labels, seconds(sample.histogram->sum));
}

void write_sample(std::string& out, const std::string& family, const Sample& sample) {
    switch (sample.kind) {
        case Sample::Kind::counter:
            write_line(out, family + "_total", sample.labels, number(sample.value, sample.unit));
            break;
        case Sample::Kind::gauge:
            write_line(out, family, sample.labels, number(sample.value, sample.unit));
            break;
        case Sample::Kind::state:
            for (std::size_t i = 0; i < sample.field->values.size(); ++i) {
                write_line(out, family,
                           with(sample.labels, family, std::string(sample.field->values[i])),
                           i == sample.value ? "1" : "0");
            }
            break;
        case Sample::Kind::histogram:
            write_histogram(out, family, sample);
            break;
    }
}

}  // namespace

std::string to_open_metrics(const telemetry::snapshot::Snapshot& snapshot) {
    const std::vector<Sample> samples = samples_of(snapshot);
    // Samples of a family stand together, families in the order in which they first occur.
    std::vector<std::string> order;
    std::map<std::string, std::vector<const Sample*>> families;
    for (const Sample& sample : samples) {
        std::vector<const Sample*>& family = families[family_of(sample)];
        if (family.empty()) {
            order.push_back(family_of(sample));
        }
        family.push_back(&sample);
    }
    std::string out;
    for (const std::string& family : order) {
        const Sample& first = *families[family].front();
        out += "# TYPE " + family + " ";
        out += type_name(first.kind);
        out += "\n";
        if (!unit_name(first.unit).empty()) {
            out += "# UNIT " + family + " ";
            out += unit_name(first.unit);
            out += "\n";
        }
        out += "# HELP " + family + " " + escaped(first.help) + "\n";
        for (const Sample* sample : families[family]) {
            write_sample(out, family, *sample);
        }
    }
    return out + "# EOF\n";
}

}  // namespace umbra::tools
