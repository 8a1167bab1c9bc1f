// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/bench/device/options.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <sstream>
#include <string_view>

namespace umbra::bench {

namespace {

constexpr const char* kHelp =
    R"(Usage: umbra_device_bench [OPTION]...

Times what a guest's IOMMU invalidations cost inside QEMU, without a guest: a
probe device listens as VFIO would and writes the queue's tail register itself,
so that neither a VM exit nor the test protocol is in the figures. Both vIOMMUs
take turns within one run, and a ratio is the median of those within a turn.

  --case LIST           only cases with these names or patterns, e.g.
                        map-512-psi,unmap-* (--list names them)
  --pages LIST          mapped pages, e.g. 4096,65536
                        (default 256,4096,65536,524288,1048576)
  --devices LIST        devices, 1 to 16, in one domain and in their own, e.g.
                        1,4,16 (default 1 for every number of pages, and 4,16 for
                        4096 and 65536 pages)
  --sharing KIND        one (domain for all devices), own or both (default both)
  --layout KIND         contiguous, fragmented or both (default both for 65536
                        pages and one device, else fragmented)
  --viommu LIST         intel-iommu, umbra-viommu or both (default both)
  --turns N             turns for each vIOMMU (default 15)
  --budget SECONDS      a case that takes longer ends early, but has three turns
                        (default 4)
  --quick               only 4096 and 65536 pages, one device, 5 turns
  --json FILE           write the results as JSON too
  --list                name the cases and stop
  --help                this text

The floor is what a figure holds beside the invalidation itself: a doorbell for
a queue with only a wait in it, and the notifications of the listener.

Environment: UMBRA_QEMU_BIN (qemu-system-x86_64), UMBRA_PLUGIN (umbra.so) and
UMBRA_QEMU_DATA (firmware folders); the defaults are the build's.

Exit status: 0 measured, 1 something did not do its work, 2 bad usage,
4 no QEMU or plugin to run on.

Example: umbra_device_bench --pages 65536 --devices 1 --case map-512-psi
)";

std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, ',');) {
        parts.push_back(part);
    }
    return parts;
}

template <class Number>
bool parse_number(const std::string& text, Number minimum, Number maximum, Number& into) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into);
    return error == std::errc() && end == text.data() + text.size() && into >= minimum &&
           into <= maximum;
}

template <class Number>
bool parse_numbers(const std::string& text, Number minimum, Number maximum,
                   std::vector<Number>& into) {
    into.clear();
    for (const std::string& part : split(text)) {
        if (!parse_number(part, minimum, maximum, into.emplace_back())) {
            return false;
        }
    }
    return !into.empty();
}

template <class Choice>
bool parse_choice(const std::string& text,
                  const std::map<std::string_view, std::vector<Choice>>& choices,
                  std::vector<Choice>& into) {
    const auto found = choices.find(text);
    if (found == choices.end()) {
        return false;
    }
    into = found->second;
    return true;
}

bool parse_viommus(const std::string& text, std::vector<qtest::Viommu>& into) {
    const std::vector<std::string> parts = split(text);
    into.clear();
    for (const qtest::Viommu viommu : {qtest::Viommu::intel, qtest::Viommu::umbra}) {
        if (std::ranges::find(parts, qtest::type_name(viommu)) != parts.end()) {
            into.push_back(viommu);
        }
    }
    return into.size() == parts.size() && !into.empty();
}

bool parse_budget(const std::string& text, std::chrono::milliseconds& into) {
    unsigned seconds = 0;
    const bool fine = parse_number(text, 0u, 3600u, seconds);
    into = std::chrono::seconds(seconds);
    return fine;
}

bool parse_value(const std::string& name, const std::string& value, Options& options) {
    if (name == "--pages") {
        return parse_numbers(value, std::size_t{2}, std::size_t{1} << 20, options.pages);
    }
    if (name == "--devices") {
        return parse_numbers(value, 1u, 16u, options.devices);
    }
    if (name == "--layout") {
        return parse_choice<Layout>(value,
                                    {{"contiguous", {Layout::contiguous}},
                                     {"fragmented", {Layout::fragmented}},
                                     {"both", {Layout::contiguous, Layout::fragmented}}},
                                    options.layouts);
    }
    if (name == "--sharing") {
        return parse_choice<Sharing>(value,
                                     {{"one", {Sharing::one_domain}},
                                      {"own", {Sharing::own_domains}},
                                      {"both", {Sharing::one_domain, Sharing::own_domains}}},
                                     options.sharings);
    }
    if (name == "--viommu") {
        return parse_viommus(value, options.viommus);
    }
    if (name == "--turns") {
        return parse_number(value, 1u, 10000u, options.turns);
    }
    if (name == "--budget") {
        return parse_budget(value, options.budget);
    }
    if (name == "--case") {
        options.cases = split(value);
        return !options.cases.empty();
    }
    if (name == "--json") {
        options.json = value;
        return !value.empty();
    }
    return false;
}

bool parse_flag(const std::string& name, Options& options) {
    if (name == "--help") {
        options.help = true;
    } else if (name == "--list") {
        options.list = true;
    } else if (name == "--quick") {
        options.pages = {4096, 65536};
        options.devices = {1};
        options.turns = 5;
    } else {
        return false;
    }
    return true;
}

std::vector<unsigned> devices_of(const Options& options, std::size_t pages) {
    if (!options.devices.empty()) {
        return options.devices;
    }
    return pages == 4096 || pages == 65536 ? std::vector<unsigned>{1, 4, 16}
                                           : std::vector<unsigned>{1};
}

std::vector<Layout> layouts_of(const Options& options, std::size_t pages, unsigned devices) {
    if (!options.layouts.empty()) {
        return options.layouts;
    }
    return pages == 65536 && devices == 1
               ? std::vector<Layout>{Layout::contiguous, Layout::fragmented}
               : std::vector<Layout>{Layout::fragmented};
}

}  // namespace

const char* help_text() {
    return kHelp;
}

std::optional<Options> parse_options(const std::vector<std::string>& words, std::string& problem) {
    Options options;
    for (std::size_t i = 0; i < words.size(); i++) {
        if (parse_flag(words[i], options)) {
            continue;
        }
        if (i + 1 >= words.size() || !parse_value(words[i], words[i + 1], options)) {
            problem = "bad option or value: " + words[i];
            if (i + 1 < words.size()) {
                problem += " " + words[i + 1];
            }
            return std::nullopt;
        }
        i++;
    }
    return options;
}

std::vector<Configuration> configurations(const Options& options) {
    std::vector<Configuration> all;
    for (const std::size_t pages : options.pages) {
        for (const unsigned devices : devices_of(options, pages)) {
            for (const Layout layout : layouts_of(options, pages, devices)) {
                for (const Sharing sharing : options.sharings) {
                    // One device has a domain of its own either way.
                    if (devices > 1 || sharing == options.sharings.front()) {
                        all.push_back({.pages = pages,
                                       .devices = devices,
                                       .sharing = devices > 1 ? sharing : Sharing::one_domain,
                                       .layout = layout});
                    }
                }
            }
        }
    }
    return all;
}

}  // namespace umbra::bench
