// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/unit/telemetry/metrics_judge.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <system_error>

namespace umbra::testing {
namespace {

namespace fs = std::filesystem;

class TemporaryFolder {
  public:
    TemporaryFolder() {
        std::string name = (fs::temp_directory_path() / "umbra-metrics-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) {
            throw std::runtime_error("cannot make a folder like " + name);
        }
        path_ = name;
    }
    ~TemporaryFolder() {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    [[nodiscard]] const fs::path& path() const { return path_; }

  private:
    fs::path path_;
};

std::vector<std::string> lines_of(std::FILE* stream) {
    std::vector<std::string> lines(1);
    for (int letter = std::fgetc(stream); letter != EOF; letter = std::fgetc(stream)) {
        if (letter == '\n') {
            lines.emplace_back();
        } else {
            lines.back() += static_cast<char>(letter);
        }
    }
    lines.pop_back();
    return lines;
}

}  // namespace

std::vector<std::string> judge_metrics(const std::vector<std::string>& texts) {
    const TemporaryFolder folder;
    std::string command = "/usr/bin/python3 -B " UMBRA_METRICS_JUDGE;
    for (std::size_t i = 0; i < texts.size(); ++i) {
        const std::string file = folder.path() / std::to_string(i);
        std::ofstream(file, std::ios::binary) << texts[i];
        command += " " + file;
    }
    std::FILE* judge = ::popen(command.c_str(), "r");
    if (judge == nullptr) {
        throw std::runtime_error("cannot run " + command);
    }
    std::vector<std::string> verdicts = lines_of(judge);
    if (::pclose(judge) != 0 || verdicts.size() != texts.size()) {
        throw std::runtime_error(
            "the judge does not run; is Debian's package python3-prometheus-client installed?");
    }
    return verdicts;
}

}  // namespace umbra::testing
