// SPDX-License-Identifier: GPL-2.0-or-later
//
// umbra_device_bench: what an invalidation costs, on QEMU's intel-iommu and on Umbra in one run.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "tests/bench/device/cases.h"
#include "tests/bench/device/options.h"
#include "tests/bench/device/report.h"
#include "tests/bench/device/subject.h"
#include "tests/qtest/environment.h"

namespace umbra::bench {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;
constexpr int kNothingToRunOn = 4;

// Also of a slow case, so that there is a median.
constexpr unsigned kLeastTurns = 3;
// An operation that takes longer, in ns, is done once a turn: more turns in the same time.
constexpr double kSlow = 10e6;

using Subjects = std::vector<std::unique_ptr<Subject>>;

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

// The results of one vIOMMU, turn by turn.
struct Samples {
    std::vector<double> times;
    std::vector<double> medians;  // of each turn
    std::vector<double> floors;
    std::vector<double> calls;
    unsigned in_a_row = 1;
};

// The times of a memcmp of the leaf tables, and their median in each turn.
struct Comparison {
    std::vector<double> times;
    std::vector<double> medians;
};

// With `comparison`, a memcmp of the subject's leaf tables follows each operation, so that both
// find the CPU's caches in the same state: full of what the other one read.
void measure_turn(const Case& benchmark, Subject& subject, Samples& samples,
                  Comparison* comparison) {
    Measurement step;
    std::vector<double> compared;
    if (comparison == nullptr) {
        step = benchmark.run(subject, samples.in_a_row);
    } else {
        for (unsigned i = 0; i < samples.in_a_row; i++) {
            const Measurement one = benchmark.run(subject, 1);
            step.times.insert(step.times.end(), one.times.begin(), one.times.end());
            step.calls += one.calls / samples.in_a_row;
            step.doorbells = one.doorbells;
            compared.push_back(subject.compare_tables());
        }
        comparison->times.insert(comparison->times.end(), compared.begin(), compared.end());
        comparison->medians.push_back(summarise(compared).median);
    }
    const Floor floor = subject.floor();
    samples.times.insert(samples.times.end(), step.times.begin(), step.times.end());
    samples.medians.push_back(summarise(step.times).median);
    samples.floors.push_back(step.doorbells * floor.doorbell + step.calls * floor.notification);
    samples.calls.push_back(step.calls);
}

// Of numbers that belong together in pairs.
Summary summarise_ratio(const std::vector<double>& dividends, const std::vector<double>& divisors) {
    std::vector<double> ratios;
    std::ranges::transform(dividends, divisors, std::back_inserter(ratios), std::divides<>());
    return summarise(ratios);
}

// `alone`: Umbra with one device in the domain and otherwise alike, or null.
Result measure(const Case& benchmark, const Configuration& configuration, Subjects& subjects,
               Subject* alone, const std::vector<Memory>& memories, const Options& options) {
    std::vector<Samples> samples(subjects.size());
    // Beside Umbra if it is there, else beside the peer.
    Comparison comparison;
    Samples of_one_device;
    // One turn that does not count: caches, allocators and lazily made tables.
    for (std::size_t i = 0; i < subjects.size(); i++) {
        const Measurement first = benchmark.run(*subjects[i], 1);
        samples[i].in_a_row = first.times.front() > kSlow ? 1 : benchmark.in_a_row;
    }
    if (alone != nullptr) {
        (void)benchmark.run(*alone, 1);
        of_one_device.in_a_row = samples.back().in_a_row;
    }
    const auto end = std::chrono::steady_clock::now() + options.budget;
    for (unsigned turn = 0; turn < options.turns; turn++) {
        if (turn >= kLeastTurns && std::chrono::steady_clock::now() >= end) {
            break;
        }
        for (std::size_t i = 0; i < subjects.size(); i++) {
            // Each goes first every other time.
            const std::size_t who = (i + turn) % subjects.size();
            const bool compares = benchmark.tables && who == subjects.size() - 1;
            measure_turn(benchmark, *subjects[who], samples[who], compares ? &comparison : nullptr);
        }
        if (alone != nullptr) {
            Comparison likewise;
            measure_turn(benchmark, *alone, of_one_device, benchmark.tables ? &likewise : nullptr);
        }
    }
    Result result;
    result.name = benchmark.name;
    result.configuration = configuration;
    result.compare = summarise(comparison.times);
    for (std::size_t i = 0; i < subjects.size(); i++) {
        result.sides.push_back({.viommu = std::string(qtest::type_name(options.viommus[i])),
                                .time = summarise(samples[i].times),
                                .calls = summarise(samples[i].calls).median,
                                .floor = summarise(samples[i].floors).median,
                                .memory = memories[i]});
    }
    if (subjects.size() == 2) {
        result.ratio = summarise_ratio(samples[0].medians, samples[1].medians);
    }
    if (options.viommus.back() == qtest::Viommu::umbra && benchmark.tables) {
        result.by_compare = summarise_ratio(samples.back().medians, comparison.medians);
    }
    if (alone != nullptr) {
        result.by_one_device = summarise_ratio(samples.back().medians, of_one_device.medians);
    }
    return result;
}

std::vector<Case> wanted_cases(const Options& options, unsigned devices) {
    std::vector<Case> wanted;
    for (const Case& benchmark : all_cases()) {
        if (matches(options.cases, benchmark.name) && (devices == 1 || benchmark.many_devices)) {
            wanted.push_back(benchmark);
        }
    }
    return wanted;
}

void measure_machine(const Configuration& configuration, const Options& options,
                     const Progress& progress, Report& report) {
    const std::vector<Case> cases = wanted_cases(options, configuration.devices);
    if (cases.empty()) {
        return;
    }
    Subjects subjects;
    std::vector<Memory> memories;
    for (const qtest::Viommu viommu : options.viommus) {
        progress.show("mapping " + std::to_string(configuration.pages) + " pages");
        subjects.push_back(std::make_unique<Subject>(viommu, configuration));
        memories.push_back(subjects.back()->memory());
    }
    std::unique_ptr<Subject> alone;
    if (configuration.devices > 1 && configuration.sharing == Sharing::one_domain &&
        options.viommus.back() == qtest::Viommu::umbra) {
        // With as many devices in the machine: after each operation all of them are asked what they
        // were told, which leaves the CPU's caches to others.
        Configuration own = configuration;
        own.sharing = Sharing::own_domains;
        alone = std::make_unique<Subject>(qtest::Viommu::umbra, own);
    }
    if (report.results.empty()) {
        report.qemu_version = "QEMU " + subjects.front()->qemu_version();
        progress.clear();
        write_table_header(std::cout, report);
    }
    for (const Case& benchmark : cases) {
        progress.show(std::string(benchmark.name) + ", " + std::to_string(configuration.pages) +
                      " pages, " + std::to_string(configuration.devices) + " devices");
        report.results.push_back(
            measure(benchmark, configuration, subjects, alone.get(), memories, options));
        progress.clear();
        write_table_row(std::cout, report.results.back());
    }
}

int fail(int status, const std::string& problem) {
    std::cerr << "umbra_device_bench: " << problem << "\n";
    return status;
}

int main_with(const std::vector<std::string>& words) {
    std::string problem;
    const std::optional<Options> options = parse_options(words, problem);
    if (!options) {
        return fail(kUsage, problem + " (try --help)");
    }
    if (options->help) {
        std::cout << help_text();
        return 0;
    }
    if (options->list) {
        for (const Case& benchmark : all_cases()) {
            std::cout << benchmark.name << "\n";
        }
        return 0;
    }
    if (wanted_cases(*options, 1).empty()) {
        return fail(kUsage, "no case has such a name (try --list)");
    }
    problem = qtest::Environment::get().problem();
    if (!problem.empty()) {
        return fail(kNothingToRunOn, problem);
    }
    Report report;
    report.processor = processor();
    report.turns = options->turns;
    const Progress progress;
    for (const Configuration& configuration : configurations(*options)) {
        measure_machine(configuration, *options, progress, report);
    }
    if (!options->json.empty()) {
        std::ofstream file(options->json);
        write_json(file, report);
        if (!file.flush()) {
            return fail(kFailed, "cannot write " + options->json);
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
        return umbra::bench::fail(umbra::bench::kFailed, error.what());
    }
}
