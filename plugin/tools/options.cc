// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/tools/options.h"

#include <charconv>
#include <cstddef>
#include <string_view>
#include <system_error>

#include "plugin/tools/errors.h"

namespace umbra::tools {

const char* const kHelp = R"(umbra-stat: shows what a unit of Umbra has counted.

  umbra-stat [--once] [--json] [--timeout SECONDS] SOURCE
  umbra-stat --openmetrics [--timeout SECONDS] SOURCE
  umbra-stat --diff [--json | --openmetrics] EARLIER LATER

SOURCE is a file that QEMU wrote (-device umbra-viommu,stats-file=PATH), or a stream of it
(-chardev socket,id=stats,path=PATH,server=on,wait=off
 -device umbra-viommu,stats-chardev=stats,stats-interval=MS): the path of a file, socket or pipe,
unix:PATH, tcp:HOST:PORT (of this machine), or - for standard input.

A file is shown once: its last snapshot, with totals. A stream is shown live: totals, and rates
since the message before. A terminal shows a page (q or Ctrl-C leaves the page); any other output
gets a line for each message.

  --once         one snapshot of a stream, then end
  --json         JSON, one line a snapshot; the form of QMP's qom-get (plugin/telemetry/umbra.proto)
  --openmetrics  one snapshot in the OpenMetrics text format, as Prometheus reads it
  --diff         what was counted between two snapshots
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

namespace {

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

}  // namespace

Options parse_options(const std::vector<std::string>& arguments) {
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

}  // namespace umbra::tools
