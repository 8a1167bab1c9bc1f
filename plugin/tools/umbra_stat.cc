// SPDX-License-Identifier: GPL-2.0-or-later
//
// umbra-stat: shows what a unit has counted, from a file (stats-file) or a stream (stats-chardev).
#include <poll.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "plugin/telemetry/json.h"
#include "plugin/tools/decode.h"
#include "plugin/tools/difference.h"
#include "plugin/tools/errors.h"
#include "plugin/tools/open_metrics.h"
#include "plugin/tools/source.h"
#include "plugin/tools/terminal.h"
#include "plugin/tools/view.h"

namespace umbra::tools {
namespace {

using telemetry::snapshot::Snapshot;
using Clock = std::chrono::steady_clock;

constexpr const char* kHelp = R"(umbra-stat: shows what a unit of Umbra has counted.

  umbra-stat [--once] [--json] [--timeout SECONDS] SOURCE
  umbra-stat --openmetrics [--timeout SECONDS] SOURCE
  umbra-stat --diff [--json | --openmetrics] EARLIER LATER

SOURCE is a file that QEMU wrote (-device umbra-viommu,stats-file=PATH), or a stream of it
(-chardev socket,id=stats,path=PATH,server=on,wait=off
 -device umbra-viommu,stats-chardev=stats,stats-interval=MS): the path of a file, socket or pipe,
unix:PATH, tcp:HOST:PORT (of this machine), or - for standard input.

A file is shown once: its last snapshot, with totals. A stream is shown live: totals, and rates
since the message before. In a terminal that is a page (q or Ctrl-C leaves it), elsewhere a line
for each message.

  --once         one snapshot of a stream, then end
  --json         JSON, one line a snapshot; the form of QMP's qom-get (plugin/telemetry/umbra.proto)
  --openmetrics  one snapshot in the OpenMetrics text format, as Prometheus reads it
  --diff         what happened between two snapshots: counters are subtracted
  --timeout S    how long to wait for a stream's first message (default: 10)
  --help         this text

Examples:
  umbra-stat /run/vm/stats.sock
  umbra-stat --once --json tcp:localhost:4711 | jq .shadow.map.calls
  umbra-stat --openmetrics umbra.stats > /var/lib/node_exporter/umbra.prom
  umbra-stat --diff before.stats after.stats

Exit codes: 0 done, 1 the input is damaged or no snapshot, 2 usage, 3 no message in time, 4 a file
or socket cannot be opened or read.
)";

enum class Format { text, json, open_metrics };

struct Options {
    Format format = Format::text;
    bool once = false;
    bool diff = false;
    std::chrono::seconds timeout{10};
    std::vector<std::string> sources;
};

// ---- Signals: the live view ends in order ----

volatile std::sig_atomic_t stop_requested = 0;

void request_stop(int /*signal*/) {
    stop_requested = 1;
}
void wake_up(int /*signal*/) {}

// Signals arrive in wait_for() only, so that none is missed in between.
class Signals {
  public:
    Signals() {
        struct sigaction action {};
        sigemptyset(&action.sa_mask);
        sigset_t blocked{};
        sigemptyset(&blocked);
        for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGWINCH}) {
            action.sa_handler = signal == SIGWINCH ? wake_up : request_stop;
            ::sigaction(signal, &action, nullptr);
            sigaddset(&blocked, signal);
        }
        ::sigprocmask(SIG_BLOCK, &blocked, &before_);
    }

    // Until one of `waiting` has something, a signal comes or the time is up (nullopt: no limit).
    // Returns whether the time is not up.
    bool wait_for(std::vector<pollfd>& waiting, std::optional<Clock::duration> limit) const {
        timespec time{};
        if (limit) {
            const auto left = std::max(*limit, Clock::duration::zero());
            const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
            time.tv_sec = seconds.count();
            time.tv_nsec =
                std::chrono::duration_cast<std::chrono::nanoseconds>(left - seconds).count();
        }
        const int ready =
            ::ppoll(waiting.data(), waiting.size(), limit ? &time : nullptr, &before_);
        if (ready < 0) {
            std::ranges::for_each(waiting, [](pollfd& one) { one.revents = 0; });
        }
        return ready != 0;
    }

  private:
    sigset_t before_{};
};

// ---- Reading ----

Snapshot decode_from(const Source& source, const Frame& frame) {
    try {
        return decode(frame);
    } catch (const InputError& error) {
        throw InputError(source.name() + ", " + error.what());
    }
}

// The last snapshot of a file. All are looked at, so that what is damaged is told where it begins.
Snapshot read_file(Source& source) {
    std::optional<Snapshot> last;
    do {
        while (const std::optional<Frame> frame = source.next()) {
            last = decode_from(source, *frame);
        }
    } while (source.read_more());
    if (!last) {
        throw InputError(source.name() + " is empty");
    }
    return std::move(*last);
}

// The first snapshot of a stream; nullopt if a signal came first.
std::optional<Snapshot> read_first(Source& source, std::chrono::seconds timeout,
                                   const Signals& signals) {
    const Clock::time_point deadline = Clock::now() + timeout;
    for (;;) {
        if (const std::optional<Frame> frame = source.next()) {
            return decode_from(source, *frame);
        }
        std::vector<pollfd> waiting = {{.fd = source.descriptor(), .events = POLLIN, .revents = 0}};
        if (!signals.wait_for(waiting, deadline - Clock::now())) {
            throw ToolError(ExitCode::timeout,
                            source.name() + " sent no whole message within " +
                                std::to_string(timeout.count()) +
                                " s; is stats-chardev set, and does nobody else read it?");
        }
        if (stop_requested != 0) {
            return std::nullopt;
        }
        if (waiting[0].revents != 0 && !source.read_more()) {
            throw InputError(source.name() + " ended without a message");
        }
    }
}

Snapshot read_one(const std::string& name, const Options& options) {
    Source source(name);
    if (!source.is_stream()) {
        return read_file(source);
    }
    const Signals signals;
    const std::optional<Snapshot> first = read_first(source, options.timeout, signals);
    if (!first) {
        throw ToolError(ExitCode::timeout, "interrupted before " + name + " sent a message");
    }
    return *first;
}

// ---- Showing ----

void print_text(const Moment& moment) {
    for (const std::string& line : page(moment)) {
        std::cout << line << '\n';
    }
}

void print(const Moment& moment, Format format) {
    switch (format) {
        case Format::json:
            std::cout << telemetry::to_json(telemetry::snapshot::record(moment.change)) << '\n';
            break;
        case Format::open_metrics:
            std::cout << to_open_metrics(moment.change);
            break;
        case Format::text:
            print_text(moment);
            break;
    }
}

void show_difference(const Options& options) {
    const Snapshot earlier = read_one(options.sources[0], options);
    const Snapshot later = read_one(options.sources[1], options);
    if (earlier.unit != later.unit) {
        throw InputError(options.sources[0] + " and " + options.sources[1] +
                         " are of different units, \"" + earlier.unit + "\" and \"" + later.unit +
                         "\"");
    }
    const Snapshot change = difference(earlier, later);
    if (options.format == Format::text) {
        // What is shown as totals is that of the time between.
        print({.now = change, .change = change, .seconds = seconds_between(earlier, later)},
              Format::text);
        return;
    }
    print({.now = later, .change = change}, options.format);
}

// A stream, as it comes.
class Live {
  public:
    Live(Source& source, Format format)
        : source_(source),
          format_(format),
          terminal_(format == Format::text && Terminal::available() ? std::make_unique<Terminal>()
                                                                    : nullptr) {}

    // Ends with the stream, or when the user wants it.
    void run(const Signals& signals, Snapshot first) {
        last_ = std::move(first);
        if (format_ == Format::text && !terminal_) {
            std::cout << line_heading() << std::endl;
        }
        if (format_ == Format::json) {
            print({.now = last_, .change = last_}, format_);
            std::cout.flush();
        }
        update(last_, 0);
        while (stop_requested == 0 && std::cout) {
            while (const std::optional<Frame> frame = source_.next()) {
                take(decode_from(source_, *frame));
            }
            std::vector<pollfd> waiting = {
                {.fd = source_.descriptor(), .events = POLLIN, .revents = 0}};
            if (terminal_) {
                waiting.push_back({.fd = 0, .events = POLLIN, .revents = 0});
            }
            (void)signals.wait_for(waiting, std::nullopt);
            if (terminal_ && waiting[1].revents != 0) {
                const char key = Terminal::key();
                if (key == 'q' || key == 'Q') {
                    return;
                }
            }
            if (terminal_) {
                Terminal::show(lines_);  // it may have another size
            }
            if (waiting[0].revents != 0 && !source_.read_more()) {
                return;
            }
        }
    }

  private:
    void take(Snapshot now) {
        const Snapshot change = difference(last_, now);
        const double seconds = seconds_between(last_, now);
        last_ = std::move(now);
        if (format_ == Format::json) {
            print({.now = last_, .change = last_}, format_);
            std::cout.flush();
        } else if (terminal_) {
            update(change, seconds);
        } else {
            std::cout << line({.now = last_, .change = change, .seconds = seconds}) << std::endl;
        }
    }
    void update(const Snapshot& change, double seconds) {
        if (terminal_) {
            lines_ = page({.now = last_, .change = change, .seconds = seconds});
            Terminal::show(lines_);
        }
    }

    Source& source_;
    Format format_;
    std::unique_ptr<Terminal> terminal_;
    Snapshot last_;
    std::vector<std::string> lines_;
};

void show(const Options& options) {
    Source source(options.sources[0]);
    if (!source.is_stream()) {
        const Snapshot last = read_file(source);
        print({.now = last, .change = last}, options.format);
        return;
    }
    const Signals signals;
    std::optional<Snapshot> first = read_first(source, options.timeout, signals);
    if (!first) {
        return;
    }
    if (options.once || options.format == Format::open_metrics) {
        print({.now = *first, .change = *first}, options.format);
        return;
    }
    Live(source, options.format).run(signals, std::move(*first));
}

// ---- The command line ----

ToolError usage(const std::string& sentence) {
    return {ExitCode::usage, sentence + "; umbra-stat --help tells more"};
}

std::chrono::seconds parse_timeout(std::string_view text) {
    unsigned seconds = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, seconds);
    if (error != std::errc() || stop != end || seconds == 0 || seconds > 86400) {
        throw usage("--timeout needs a number of seconds from 1 to 86400, not \"" +
                    std::string(text) + "\"");
    }
    return std::chrono::seconds(seconds);
}

Options parse(const std::vector<std::string>& arguments) {
    Options options;
    bool json = false;
    bool open_metrics = false;
    bool only_sources = false;
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        const std::string& word = arguments[i];
        if (only_sources || word == "-" || !word.starts_with("-")) {
            options.sources.push_back(word);
        } else if (word == "--") {
            only_sources = true;
        } else if (word == "--once") {
            options.once = true;
        } else if (word == "--json") {
            json = true;
        } else if (word == "--openmetrics") {
            open_metrics = true;
        } else if (word == "--diff") {
            options.diff = true;
        } else if (word == "--timeout") {
            if (i + 1 == arguments.size()) {
                throw usage("--timeout needs a number of seconds");
            }
            options.timeout = parse_timeout(arguments[++i]);
        } else {
            throw usage("there is no option " + word);
        }
    }
    if (json && open_metrics) {
        throw usage("--json and --openmetrics exclude each other");
    }
    if (options.sources.size() != (options.diff ? 2u : 1u)) {
        throw usage(options.diff ? "--diff needs two sources, the earlier one first"
                                 : "name one source: a file, a socket, or -");
    }
    options.format = json ? Format::json : open_metrics ? Format::open_metrics : Format::text;
    return options;
}

int run(const std::vector<std::string>& arguments) {
    if (std::ranges::find(arguments, "--help") != arguments.end() ||
        std::ranges::find(arguments, "-h") != arguments.end()) {
        std::cout << kHelp;
        return 0;
    }
    const Options options = parse(arguments);
    if (options.diff) {
        show_difference(options);
    } else {
        show(options);
    }
    std::cout.flush();
    if (!std::cout) {
        throw ToolError(ExitCode::environment, "the output cannot be written");
    }
    return 0;
}

}  // namespace
}  // namespace umbra::tools

int main(int argc, char** argv) {
    try {
        return umbra::tools::run({argv + 1, argv + argc});
    } catch (const umbra::tools::ToolError& error) {
        std::cerr << "umbra-stat: " << error.what() << '\n';
        return static_cast<int>(error.code());
    } catch (const std::exception& error) {
        std::cerr << "umbra-stat: " << error.what() << '\n';
        return static_cast<int>(umbra::tools::ExitCode::environment);
    }
}
