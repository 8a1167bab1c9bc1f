// SPDX-License-Identifier: GPL-2.0-or-later
//
// umbra_device_bench: what an invalidation costs, on QEMU's intel-iommu and on Umbra in one run.
#include <unistd.h>

#include <charconv>
#include <exception>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <optional>
#include <sstream>
#include <string_view>

#include "tests/bench/device/report.h"
#include "tests/bench/device/subject.h"

namespace umbra::bench {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;
constexpr int kNothingToRunOn = 3;

constexpr std::string_view kHelp =
    R"(Usage: umbra_device_bench [OPTION]...

Times what a guest's IOMMU invalidations cost inside QEMU, without a guest: a
probe device listens as VFIO would and writes the queue's tail register itself,
so that neither a VM exit nor the test protocol is in the figures. Both vIOMMUs
take turns within one run.

  --quick               only 4096 and 65536 pages, one device, 5 repetitions
  --pages LIST          mapped pages, e.g. 4096,65536
                        (default 256,4096,65536,524288,1048576)
  --devices LIST        devices, 1 to 16, in one domain and in their own, e.g.
                        1,4,16 (default 1 for every number of pages, and 4,16 for
                        4096 and 65536 pages)
  --layout KIND         contiguous, fragmented or both (default both for 65536
                        pages and one device, else fragmented)
  --operation TEXT      only operations whose name holds TEXT
  --viommu LIST         intel-iommu, umbra-viommu or both (default both)
  --repetitions N       turns for each vIOMMU (default 15)
  --json FILE           write the results as JSON too
  --help                this text

Environment: UMBRA_QEMU_BIN (qemu-system-x86_64), UMBRA_PLUGIN (umbra.so) and
UMBRA_QEMU_DATA (firmware folders); the defaults are the build's.

Exit status: 0 measured, 1 something did not do its work, 2 bad usage,
3 no QEMU or plugin to run on.

Example: umbra_device_bench --pages 65536 --devices 1,16 --operation dsi
)";

struct Options {
    std::vector<std::size_t> pages = {256, 4096, 65536, 524288, 1048576};
    std::vector<std::size_t> devices;  // empty: the default choice
    std::vector<Layout> layouts;       // empty: the default choice
    std::vector<qtest::Viommu> viommus = {qtest::Viommu::intel, qtest::Viommu::umbra};
    std::string operation;
    unsigned repetitions = 15;
    std::string json;
};

struct Operation {
    const char* name;
    // Repetitions within one turn. The first of several in a row finds colder caches than the rest.
    unsigned in_a_row;
    bool many_devices;  // measured with more than one device too
    bool tables;        // has a memcmp of the leaf tables as its yardstick
    std::function<Measurement(Subject&, unsigned)> run;
};

const std::vector<Operation>& operations() {
    static const std::vector<Operation> all = {
        {"dsi-unchanged", 5, true, true,
         [](Subject& s, unsigned n) { return s.domain_unchanged(n); }},
        {"gi-unchanged", 5, true, true,
         [](Subject& s, unsigned n) { return s.global_unchanged(n); }},
        {"unmap-256-dsi", 3, true, true,
         [](Subject& s, unsigned n) { return s.unmap_scattered(n); }},
        {"map-all-dsi", 1, false, true, [](Subject& s, unsigned n) { return s.map_all(n); }},
        {"unmap-all-dsi", 1, false, true, [](Subject& s, unsigned n) { return s.unmap_all(n); }},
        {"map-1-psi", 3, true, false, [](Subject& s, unsigned n) { return s.map_pages(1, n); }},
        {"map-1-psi-adjacent", 3, false, false,
         [](Subject& s, unsigned n) { return s.map_adjacent(n); }},
        {"unmap-1-psi", 3, true, false, [](Subject& s, unsigned n) { return s.unmap_pages(1, n); }},
        {"map-8-psi", 3, false, false, [](Subject& s, unsigned n) { return s.map_pages(8, n); }},
        {"unmap-8-psi", 3, false, false,
         [](Subject& s, unsigned n) { return s.unmap_pages(8, n); }},
        {"map-512-psi", 3, false, false,
         [](Subject& s, unsigned n) { return s.map_pages(512, n); }},
        {"unmap-512-psi", 3, false, false,
         [](Subject& s, unsigned n) { return s.unmap_pages(512, n); }},
        {"map-2m-psi", 3, false, false, [](Subject& s, unsigned n) { return s.map_large(n); }},
        {"unmap-2m-psi", 3, false, false, [](Subject& s, unsigned n) { return s.unmap_large(n); }},
    };
    return all;
}

std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, ',');) {
        parts.push_back(part);
    }
    return parts;
}

std::optional<std::size_t> number(const std::string& text, std::size_t minimum,
                                  std::size_t maximum) {
    std::size_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < minimum ||
        value > maximum) {
        return std::nullopt;
    }
    return value;
}

bool parse_numbers(const std::string& text, std::size_t minimum, std::size_t maximum,
                   std::vector<std::size_t>& into) {
    into.clear();
    for (const std::string& part : split(text)) {
        const std::optional<std::size_t> value = number(part, minimum, maximum);
        if (!value) {
            return false;
        }
        into.push_back(*value);
    }
    return !into.empty();
}

bool parse_option(const std::string& name, const std::string& value, Options& options) {
    if (name == "--pages") {
        return parse_numbers(value, 2, std::size_t{1} << 20, options.pages);
    }
    if (name == "--devices") {
        return parse_numbers(value, 1, 16, options.devices);
    }
    if (name == "--layout") {
        static const std::map<std::string, std::vector<Layout>> kinds = {
            {"contiguous", {Layout::contiguous}},
            {"fragmented", {Layout::fragmented}},
            {"both", {Layout::contiguous, Layout::fragmented}}};
        const auto found = kinds.find(value);
        if (found != kinds.end()) {
            options.layouts = found->second;
        }
        return found != kinds.end();
    }
    if (name == "--viommu") {
        options.viommus.clear();
        for (const qtest::Viommu viommu : {qtest::Viommu::intel, qtest::Viommu::umbra}) {
            for (const std::string& part : split(value)) {
                if (part == qtest::type_name(viommu)) {
                    options.viommus.push_back(viommu);
                }
            }
        }
        return options.viommus.size() == split(value).size() && !options.viommus.empty();
    }
    if (name == "--repetitions") {
        const std::optional<std::size_t> value_read = number(value, 1, 10000);
        options.repetitions = static_cast<unsigned>(value_read.value_or(0));
        return value_read.has_value();
    }
    if (name == "--operation") {
        options.operation = value;
        return true;
    }
    if (name == "--json") {
        options.json = value;
        return true;
    }
    return false;
}

// The exit status if the program ends here.
std::optional<int> parse(const std::vector<std::string>& words, Options& options) {
    for (std::size_t i = 0; i < words.size(); i++) {
        if (words[i] == "--help") {
            std::cout << kHelp;
            return 0;
        }
        if (words[i] == "--quick") {
            options.pages = {4096, 65536};
            options.devices = {1};
            options.repetitions = 5;
            continue;
        }
        if (i + 1 >= words.size() || !parse_option(words[i], words[i + 1], options)) {
            std::cerr << "umbra_device_bench: bad option or value: " << words[i];
            if (i + 1 < words.size()) {
                std::cerr << " " << words[i + 1];
            }
            std::cerr << " (try --help)\n";
            return kUsage;
        }
        i++;
    }
    return std::nullopt;
}

std::vector<Configuration> configurations(const Options& options) {
    std::vector<Configuration> all;
    for (const std::size_t pages : options.pages) {
        std::vector<std::size_t> devices = options.devices;
        if (devices.empty()) {
            devices = {1};
            if (pages == 4096 || pages == 65536) {
                devices.insert(devices.end(), {4, 16});
            }
        }
        for (const std::size_t count : devices) {
            std::vector<Layout> layouts = options.layouts;
            if (layouts.empty()) {
                layouts = {Layout::fragmented};
                if (pages == 65536 && count == 1) {
                    layouts.insert(layouts.begin(), Layout::contiguous);
                }
            }
            for (const Layout layout : layouts) {
                Configuration configuration{.pages = pages,
                                            .devices = static_cast<unsigned>(count),
                                            .sharing = Sharing::one_domain,
                                            .layout = layout};
                all.push_back(configuration);
                if (count > 1) {
                    configuration.sharing = Sharing::own_domains;
                    all.push_back(configuration);
                }
            }
        }
    }
    return all;
}

std::string processor() {
    std::ifstream information("/proc/cpuinfo");
    for (std::string line; std::getline(information, line);) {
        if (line.rfind("model name", 0) == 0) {
            return line.substr(line.find(':') + 2) + ", " +
                   std::to_string(::sysconf(_SC_NPROCESSORS_ONLN)) + " cores";
        }
    }
    return "unknown processor";
}

class Progress {
  public:
    void show(const std::string& text) const {
        if (visible_) {
            std::cerr << "\r\033[K" << text << std::flush;
        }
    }
    void clear() const { show(""); }

  private:
    bool visible_ = ::isatty(STDERR_FILENO) != 0;
};

Result measure(const Operation& operation, const Configuration& configuration,
               std::vector<std::unique_ptr<Subject>>& subjects, const Options& options) {
    std::vector<Measurement> measured(subjects.size());
    std::vector<double> compare;
    // One turn that does not count: caches, allocators and lazily made tables.
    for (const std::unique_ptr<Subject>& subject : subjects) {
        static_cast<void>(operation.run(*subject, 1));
    }
    for (unsigned turn = 0; turn < options.repetitions; turn++) {
        for (std::size_t i = 0; i < subjects.size(); i++) {
            const Measurement step = operation.run(*subjects[i], operation.in_a_row);
            measured[i].times.insert(measured[i].times.end(), step.times.begin(), step.times.end());
            measured[i].calls += step.calls / options.repetitions;
        }
        for (unsigned i = 0; operation.tables && i < operation.in_a_row; i++) {
            compare.push_back(subjects.front()->compare_tables());
        }
    }
    Result result{.operation = operation.name,
                  .configuration = configuration,
                  .sides = {},
                  .compare = summarise(compare)};
    for (std::size_t i = 0; i < subjects.size(); i++) {
        result.sides.push_back({.viommu = std::string(qtest::type_name(options.viommus[i])),
                                .time = summarise(measured[i].times),
                                .calls = measured[i].calls});
    }
    return result;
}

void run(const Options& options, Report& report) {
    const Progress progress;
    bool header = false;
    for (const Configuration& configuration : configurations(options)) {
        std::vector<std::unique_ptr<Subject>> subjects;
        for (const Operation& operation : operations()) {
            const bool wanted =
                std::string_view(operation.name).find(options.operation) != std::string::npos;
            if (!wanted || (configuration.devices > 1 && !operation.many_devices)) {
                continue;
            }
            if (subjects.empty()) {
                for (const qtest::Viommu viommu : options.viommus) {
                    subjects.push_back(std::make_unique<Subject>(viommu, configuration));
                }
            }
            if (!header) {
                report.qemu_version = "QEMU " + subjects.front()->qemu_version();
                write_table_header(std::cout, report);
                header = true;
            }
            progress.show(std::string(operation.name) + ", " + std::to_string(configuration.pages) +
                          " pages, " + std::to_string(configuration.devices) + " devices");
            report.results.push_back(measure(operation, configuration, subjects, options));
            progress.clear();
            write_table_row(std::cout, report.results.back());
        }
    }
}

int main_with(const std::vector<std::string>& words) {
    Options options;
    if (const std::optional<int> status = parse(words, options)) {
        return *status;
    }
    const std::string problem = qtest::Environment::get().problem();
    if (!problem.empty()) {
        std::cerr << "umbra_device_bench: " << problem << "\n";
        return kNothingToRunOn;
    }
    Report report;
    report.processor = processor();
    report.repetitions = options.repetitions;
    run(options, report);
    if (report.results.empty()) {
        std::cerr << "umbra_device_bench: no operation is named like \"" << options.operation
                  << "\"\n";
        return kUsage;
    }
    if (!options.json.empty()) {
        std::ofstream file(options.json);
        write_json(file, report);
        if (!file.flush()) {
            std::cerr << "umbra_device_bench: cannot write " << options.json << "\n";
            return kFailed;
        }
    }
    return 0;
}

}  // namespace
}  // namespace umbra::bench

int main(int argc, char** argv) {
    try {
        return umbra::bench::main_with({argv + 1, argv + argc});
    } catch (const std::exception& error) {
        std::cerr << "umbra_device_bench: " << error.what() << "\n";
        return umbra::bench::kFailed;
    }
}
