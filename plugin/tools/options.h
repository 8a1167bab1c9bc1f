// SPDX-License-Identifier: GPL-2.0-or-later
//
// The command line of umbra-stat: its help text, and what a user asked for.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace umbra::tools {

extern const char* const kHelp;

enum class Format { text, json, open_metrics };

struct Options {
    Format format = Format::text;
    bool once = false;
    bool diff = false;
    std::chrono::seconds timeout{10};
    std::vector<std::string> sources;  // two with `diff`, otherwise one
};

// The words after the program's name. Throws ToolError (ExitCode::usage).
[[nodiscard]] Options parse_options(const std::vector<std::string>& arguments);

}  // namespace umbra::tools
