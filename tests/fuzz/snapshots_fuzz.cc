// SPDX-License-Identifier: GPL-2.0-or-later
//
// Somebody who sends umbra-stat whatever they like. The input is a stream of messages, of which the
// first byte says in pieces of what size it comes.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "plugin/telemetry/json.h"
#include "plugin/telemetry/wire.h"
#include "plugin/tools/decode.h"
#include "plugin/tools/difference.h"
#include "plugin/tools/errors.h"
#include "plugin/tools/framing.h"
#include "plugin/tools/open_metrics.h"
#include "plugin/tools/view.h"
#include "tests/fuzz/input.h"

namespace umbra::fuzz {
namespace {

using telemetry::snapshot::Snapshot;

bool printable(std::string_view text) {
    return std::ranges::all_of(text, [](char letter) { return letter >= ' ' && letter <= '~'; });
}

void show(const tools::Moment& moment) {
    for (const std::string& line : tools::page(moment)) {
        require(printable(line), "a terminal gets nothing but text");
    }
    require(printable(tools::line(moment)), "a terminal gets nothing but text");
    const auto record = telemetry::snapshot::record(moment.change);
    const std::string json = telemetry::to_json(record);
    require(std::ranges::none_of(json, [](char c) { return c >= 0 && c < ' '; }),
            "JSON of a snapshot is one line");
    require(tools::to_open_metrics(moment.change).ends_with("# EOF\n"), "metrics have an end");
    // What was understood is written so that it is understood again.
    const Snapshot again = tools::decode({.offset = 0, .bytes = telemetry::encode(record)});
    require(telemetry::to_json(telemetry::snapshot::record(again)) == json, "a round trip");
}

void run(std::string_view stream, std::size_t piece) {
    tools::FrameReader reader;
    std::optional<Snapshot> last;
    for (std::size_t at = 0; at < stream.size(); at += piece) {
        reader.feed(stream.substr(at, piece));
        while (const std::optional<tools::Frame> frame = reader.next()) {
            require(stream.substr(static_cast<std::size_t>(frame->offset), frame->bytes.size()) ==
                        frame->bytes,
                    "a message is where it is said to be");
            const Snapshot now = tools::decode(*frame);
            const Snapshot change = last ? tools::difference(*last, now) : now;
            show({.now = now,
                  .change = change,
                  .seconds = last ? tools::seconds_between(*last, now) : 0});
            last = now;
        }
    }
    reader.finish();
}

}  // namespace
}  // namespace umbra::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) {
        return 0;
    }
    try {
        umbra::fuzz::run({reinterpret_cast<const char*>(data) + 1, size - 1},
                         std::size_t{data[0]} + 1);
    } catch (const umbra::tools::InputError&) {
        // The only way in which a bad input may end.
    }
    return 0;
}
