// SPDX-License-Identifier: GPL-2.0-or-later
//
// umbra-stat: shows what a unit has counted, from a file (stats-file) or a stream (stats-chardev).
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "plugin/telemetry/json.h"
#include "plugin/tools/decode.h"
#include "plugin/tools/difference.h"
#include "plugin/tools/errors.h"
#include "plugin/tools/open_metrics.h"
#include "plugin/tools/options.h"
#include "plugin/tools/signals.h"
#include "plugin/tools/source.h"
#include "plugin/tools/terminal.h"
#include "plugin/tools/view.h"

namespace umbra::tools {
namespace {

using telemetry::snapshot::Snapshot;
using Clock = std::chrono::steady_clock;

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
        if (Signals::stop_requested()) {
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
        while (!Signals::stop_requested() && std::cout) {
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

int run(const std::vector<std::string>& arguments) {
    if (std::ranges::find(arguments, "--help") != arguments.end() ||
        std::ranges::find(arguments, "-h") != arguments.end()) {
        std::cout << kHelp;
        return 0;
    }
    const Options options = parse_options(arguments);
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
