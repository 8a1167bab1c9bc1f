// SPDX-License-Identifier: GPL-2.0-or-later
//
// How the tools end, and the exceptions that end them: each has one sentence for the user.
#pragma once

#include <stdexcept>
#include <string>

namespace umbra::tools {

enum class ExitCode : int {
    success = 0,
    bad_input = 1,  // what was read is not what it should be
    usage = 2,
    timeout = 3,
    environment = 4,  // a file or socket that cannot be opened or read
};

class ToolError : public std::runtime_error {
  public:
    ToolError(ExitCode code, const std::string& sentence)
        : std::runtime_error(sentence), code_(code) {}
    [[nodiscard]] ExitCode code() const { return code_; }

  private:
    ExitCode code_;
};

// What was read is damaged, or no snapshot. The sentence says where.
class InputError : public ToolError {
  public:
    explicit InputError(const std::string& sentence) : ToolError(ExitCode::bad_input, sentence) {}
};

}  // namespace umbra::tools
