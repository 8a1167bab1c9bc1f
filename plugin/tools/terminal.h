// SPDX-License-Identifier: GPL-2.0-or-later
//
// The terminal while a live view is on it: another screen, keys that come at once, no cursor. All
// of that ends with the object.
#pragma once

#include <termios.h>

#include <string>
#include <vector>

namespace umbra::tools {

struct TerminalSize {
    unsigned rows = 24;
    unsigned columns = 80;
};

class Terminal {
  public:
    // True if standard input and output are both a terminal.
    [[nodiscard]] static bool available();

    Terminal();
    ~Terminal();
    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;

    [[nodiscard]] static TerminalSize size();
    // Shows the lines, as many and as much of each as there is room for.
    static void show(const std::vector<std::string>& lines);
    // The key that was pressed; 0 if none was, or at the end of the input.
    [[nodiscard]] static char key();

  private:
    termios before_{};
};

}  // namespace umbra::tools
