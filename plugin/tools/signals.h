// SPDX-License-Identifier: GPL-2.0-or-later
//
// Signals of a program that waits for input: SIGINT, SIGTERM and SIGHUP ask the program to stop, so
// that it can leave the terminal as it was, and SIGWINCH wakes the program up. While an object of
// the class exists, these signals arrive in wait_for() only, so none is missed between two calls.
//
// Threading: one thread, and one object at a time.
#pragma once

#include <poll.h>

#include <chrono>
#include <csignal>
#include <optional>
#include <vector>

namespace umbra::tools {

class Signals {
  public:
    using Duration = std::chrono::steady_clock::duration;

    Signals();

    // Waits until one of `waiting` has something, a signal comes, or the time is up (nullopt: no
    // limit). Returns whether the time is not up. After a signal, every `revents` is 0.
    bool wait_for(std::vector<pollfd>& waiting, std::optional<Duration> limit) const;

    // Whether a signal asked the program to stop.
    [[nodiscard]] static bool stop_requested();

  private:
    sigset_t before_{};
};

}  // namespace umbra::tools
