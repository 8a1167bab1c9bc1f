// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/tools/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>

namespace umbra::tools {
namespace {

void write_out(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
}

}  // namespace

bool Terminal::available() {
    return ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1;
}

Terminal::Terminal() {
    ::tcgetattr(STDIN_FILENO, &before_);
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    // Ctrl-Z would leave the shell with this screen.
    raw.c_cc[VSUSP] = _POSIX_VDISABLE;
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    ::tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    // The other screen, no cursor.
    write_out("\x1b[?1049h\x1b[?25l");
}

Terminal::~Terminal() {
    write_out("\x1b[?25h\x1b[?1049l");
    ::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
}

TerminalSize Terminal::size() {
    winsize window{};
    TerminalSize size;
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_row > 0 &&
        window.ws_col > 0) {
        size = {.rows = window.ws_row, .columns = window.ws_col};
    }
    return size;
}

void Terminal::show(const std::vector<std::string>& lines) {
    const TerminalSize size = Terminal::size();
    // Each line is written over the old one, and its rest erased: so nothing flickers.
    std::string text = "\x1b[H";
    for (unsigned row = 0; row < size.rows && row < lines.size(); ++row) {
        text += (row > 0 ? "\r\n" : "") + lines[row].substr(0, size.columns) + "\x1b[K";
    }
    write_out(text + "\x1b[J");
}

char Terminal::key() {
    char key = 0;
    return ::read(STDIN_FILENO, &key, 1) == 1 ? key : '\0';
}

}  // namespace umbra::tools
