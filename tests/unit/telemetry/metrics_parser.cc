// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/unit/telemetry/metrics_parser.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <set>
#include <sstream>

namespace umbra::testing {
namespace {

bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

// Of metrics with a colon, of labels without.
bool is_name(std::string_view text, bool label) {
    if (text.empty() || is_digit(text[0])) {
        return false;
    }
    return std::ranges::all_of(text, [label](char c) {
        return is_letter(c) || is_digit(c) || c == '_' || (!label && c == ':');
    });
}

class Parser {
  public:
    explicit Parser(std::string_view text) : text_(text) {}

    std::map<std::string, MetricFamily> parse() {
        require(text_.ends_with("# EOF\n"), "the text must end with # EOF and a line feed");
        bool ended = false;
        while (!text_.empty()) {
            ++line_;
            const std::size_t end = text_.find('\n');
            require(end != std::string_view::npos, "the last line must end");
            const std::string_view line = text_.substr(0, end);
            text_.remove_prefix(end + 1);
            require(!ended, "nothing may follow # EOF");
            require(!line.empty(), "lines must not be empty");
            if (line == "# EOF") {
                ended = true;
            } else if (line[0] == '#') {
                metadata(line);
            } else {
                sample(line);
            }
        }
        for (const auto& [name, family] : families_) {
            check(family);
        }
        check_names();
        return families_;
    }

  private:
    void require(bool condition, const std::string& sentence) const {
        if (!condition) {
            throw MetricsError("line " + std::to_string(line_) + ": " + sentence);
        }
    }

    void metadata(std::string_view line) {
        std::istringstream words{std::string(line)};
        std::string hash;
        std::string kind;
        std::string name;
        require(static_cast<bool>(words >> hash >> kind >> name) && hash == "#", "no metadata");
        require(line.starts_with("# " + kind + " " + name), "one space between words");
        require(is_name(name, false), name + " is no name of a metric");
        if (current_ == nullptr || current_->name != name) {
            require(!families_.contains(name), "families must not be interleaved: " + name);
            current_ = &families_[name];
            current_->name = name;
            told_.clear();
        }
        require(current_->metrics.empty(), "metadata must come before samples");
        require(told_.insert(kind).second, kind + " twice for " + name);
        const std::size_t start = 4 + kind.size() + name.size();
        const std::string value(line.size() > start ? line.substr(start) : "");
        if (kind == "TYPE") {
            static const std::set<std::string> kTypes = {"counter",  "gauge",         "histogram",
                                                         "stateset", "info",          "summary",
                                                         "unknown",  "gaugehistogram"};
            require(kTypes.contains(value), value + " is no type");
            current_->type = value;
        } else if (kind == "UNIT") {
            require(name.ends_with("_" + value), "the unit must end the name: " + name);
            current_->unit = value;
        } else if (kind == "HELP") {
            current_->help = unescape(value);
        } else {
            require(false, kind + " is no kind of metadata");
        }
    }

    std::string unescape(std::string_view text) const {
        std::string out;
        for (std::size_t i = 0; i < text.size(); ++i) {
            if (text[i] != '\\') {
                out += text[i];
                continue;
            }
            require(++i < text.size(), "a backslash at the end");
            require(text[i] == '\\' || text[i] == '"' || text[i] == 'n', "unknown escape");
            out += text[i] == 'n' ? '\n' : text[i];
        }
        return out;
    }

    void sample(std::string_view line) {
        require(current_ != nullptr, "a sample without a family");
        Metric metric;
        std::size_t at = line.find_first_of("{ ");
        require(at != std::string_view::npos, "a sample without a value");
        metric.name = line.substr(0, at);
        require(is_name(metric.name, false), metric.name + " is no name");
        if (line[at] == '{') {
            ++at;
            while (line.at(at) != '}') {
                at = label(line, at, metric);
            }
            ++at;
        }
        require(at < line.size() && line[at] == ' ', "a space must precede the value");
        metric.value = line.substr(at + 1);
        require(!metric.value.empty() && metric.value.find(' ') == std::string::npos,
                "one value, no time stamp");
        (void)metric.number();
        check_suffix(metric);
        current_->metrics.push_back(metric);
        require(unique_.insert({metric.name, metric.labels}).second, "the same sample twice");
    }

    std::size_t label(std::string_view line, std::size_t at, Metric& metric) const {
        const std::size_t equals = line.find("=\"", at);
        require(equals != std::string_view::npos, "a label without a value");
        const std::string name(line.substr(at, equals - at));
        require(is_name(name, true), name + " is no name of a label");
        std::size_t end = equals + 2;
        while (line.at(end) != '"') {
            end += line[end] == '\\' ? 2 : 1;
        }
        const std::string value = unescape(line.substr(equals + 2, end - equals - 2));
        require(metric.labels.emplace(name, value).second, "label " + name + " twice");
        ++end;
        require(end < line.size() && (line[end] == ',' || line[end] == '}'), "a comma or a brace");
        return line[end] == ',' ? end + 1 : end;
    }

    // Which names and values samples of a type may have.
    void check_suffix(const Metric& metric) const {
        require(metric.name.starts_with(current_->name),
                metric.name + " does not belong to " + current_->name);
        const std::string suffix = metric.name.substr(current_->name.size());
        const std::string& type = current_->type;
        if (type == "counter") {
            require(suffix == "_total", "a counter's sample ends in _total");
            require(metric.number() >= 0, "counters are not negative");
        } else if (type == "gauge") {
            require(suffix.empty(), "a gauge's sample has no suffix");
        } else if (type == "stateset") {
            require(suffix.empty() && metric.labels.contains(current_->name),
                    "a state has a label with its family's name");
            require(metric.value == "0" || metric.value == "1", "a state is 0 or 1");
        } else if (type == "histogram") {
            require(suffix == "_bucket" || suffix == "_count" || suffix == "_sum",
                    "a histogram has _bucket, _count and _sum");
            require((suffix == "_bucket") == metric.labels.contains("le"), "le is for buckets");
        } else {
            require(false, type + " is not expected here");
        }
    }

    void check(const MetricFamily& family) const {
        require(!family.type.empty(), family.name + " has no type");
        require(!family.metrics.empty(), family.name + " has no samples");
        if (family.type == "histogram") {
            check_histogram(family);
        }
        if (family.type == "stateset") {
            std::map<std::map<std::string, std::string>, int> set;
            for (const Metric& metric : family.metrics) {
                auto others = metric.labels;
                others.erase(family.name);
                set[others] += metric.value == "1" ? 1 : 0;
            }
            for (const auto& [labels, count] : set) {
                require(count == 1, "one state at a time in " + family.name);
            }
        }
    }

    void check_histogram(const MetricFamily& family) const {
        struct Series {
            std::vector<std::pair<double, double>> buckets;
            double count = -1;
            bool sum = false;
        };
        std::map<std::map<std::string, std::string>, Series> all;
        for (const Metric& metric : family.metrics) {
            auto others = metric.labels;
            others.erase("le");
            Series& series = all[others];
            if (metric.name.ends_with("_bucket")) {
                const std::string& bound = metric.labels.at("le");
                require(is_digit(bound[0]) ? bound.find('.') != std::string::npos : bound == "+Inf",
                        "le is a float: " + bound);
                series.buckets.emplace_back(
                    bound == "+Inf" ? std::numeric_limits<double>::infinity() : std::stod(bound),
                    metric.number());
            } else if (metric.name.ends_with("_count")) {
                series.count = metric.number();
            } else {
                series.sum = true;
            }
        }
        for (const auto& [labels, series] : all) {
            require(series.sum && series.count >= 0, family.name + " lacks _sum or _count");
            require(!series.buckets.empty() && std::isinf(series.buckets.back().first),
                    family.name + " has no bucket +Inf at its end");
            require(series.buckets.back().second == series.count, "+Inf and _count differ");
            for (std::size_t i = 1; i < series.buckets.size(); ++i) {
                require(series.buckets[i - 1].first < series.buckets[i].first &&
                            series.buckets[i - 1].second <= series.buckets[i].second,
                        "buckets ascend");
            }
        }
    }

    // No family has the name that a sample of another one has.
    void check_names() const {
        for (const auto& [name, family] : families_) {
            for (const Metric& metric : family.metrics) {
                require(metric.name == name || !families_.contains(metric.name),
                        metric.name + " is a sample of one family and the name of another");
            }
        }
    }

    std::string_view text_;
    std::size_t line_ = 0;
    std::map<std::string, MetricFamily> families_;
    MetricFamily* current_ = nullptr;
    std::set<std::string> told_;
    std::set<std::pair<std::string, std::map<std::string, std::string>>> unique_;
};

}  // namespace

double Metric::number() const {
    std::size_t used = 0;
    const double parsed = std::stod(value, &used);
    if (used != value.size()) {
        throw MetricsError(value + " is no number");
    }
    return parsed;
}

std::map<std::string, MetricFamily> parse_metrics(std::string_view text) {
    return Parser(text).parse();
}

}  // namespace umbra::testing
