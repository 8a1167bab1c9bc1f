// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/tools/signals.h"

#include <algorithm>

namespace umbra::tools {
namespace {

volatile std::sig_atomic_t stop_signals = 0;

void note_stop(int /*signal*/) {
    stop_signals = 1;
}
void wake_up(int /*signal*/) {}

}  // namespace

Signals::Signals() {
    struct sigaction action {};
    sigemptyset(&action.sa_mask);
    sigset_t blocked{};
    sigemptyset(&blocked);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGWINCH}) {
        action.sa_handler = signal == SIGWINCH ? wake_up : note_stop;
        ::sigaction(signal, &action, nullptr);
        sigaddset(&blocked, signal);
    }
    ::sigprocmask(SIG_BLOCK, &blocked, &before_);
}

bool Signals::wait_for(std::vector<pollfd>& waiting, std::optional<Duration> limit) const {
    timespec time{};
    if (limit) {
        const auto left = std::max(*limit, Duration::zero());
        const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
        time.tv_sec = seconds.count();
        time.tv_nsec = std::chrono::duration_cast<std::chrono::nanoseconds>(left - seconds).count();
    }
    const int ready = ::ppoll(waiting.data(), waiting.size(), limit ? &time : nullptr, &before_);
    if (ready < 0) {
        std::ranges::for_each(waiting, [](pollfd& one) { one.revents = 0; });
    }
    return ready != 0;
}

bool Signals::stop_requested() {
    return stop_signals != 0;
}

}  // namespace umbra::tools
