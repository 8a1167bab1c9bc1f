// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/tools/view.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "plugin/tools/difference.h"
#include "tests/unit/telemetry/samples.h"

namespace umbra::tools {
namespace {

namespace snapshot = telemetry::snapshot;

std::string joined(const std::vector<std::string>& lines) {
    std::string text;
    for (const std::string& line : lines) {
        text += line + "\n";
    }
    return text;
}

// The words of the first line that begins with `start`, behind it.
std::string row(const std::string& text, const std::string& start) {
    const std::size_t at = text.find("\n" + start);
    if (at == std::string::npos) {
        return "no line " + start;
    }
    const std::size_t begin = at + 1 + start.size();
    std::string words;
    for (const char letter : text.substr(begin, text.find('\n', begin) - begin)) {
        if (letter != ' ' || (!words.empty() && words.back() != ' ')) {
            words += letter;
        }
    }
    return words;
}

class View : public ::testing::Test {
  protected:
    View() {
        before = testing::empty_snapshot();
        before.taken_ns = 1'000'000'000;
        before.invalidations.queue.iotlb_page = 1000;
        before.domains = {{.domain = 5, .page_invalidations = 1000}};
        before.shadow.domains = {{.domain = 5, .devices = 2}};
        before.shadow.devices = {{.source = 0x28,
                                  .mode = static_cast<std::uint64_t>(snapshot::Mode::translated),
                                  .domain = 5}};
        now = before;
        now.taken_ns += 2'000'000'000;
        now.taken_unix_ns = 1'700'000'000'000'000'000;
        now.invalidations.queue.iotlb_page += 3000;
        now.domains[0].page_invalidations += 3000;
        now.shadow.domains[0].host.map.calls = 500;
        now.shadow.domains[0].host.live_mappings = 17;
        now.shadow.devices[0].host.map.calls = 500;
        now.shadow.latency.page.wait = {
            .buckets = {{.up_to = 1500, .count = 2}}, .count = 2, .sum = 2000, .max = 1400};
        now.shadow.latency.page.total = now.shadow.latency.page.wait;
    }

    snapshot::Snapshot before;
    snapshot::Snapshot now;
};

TEST_F(View, TotalsWithoutRates) {
    const std::string text = joined(page({.now = now, .change = now}));
    EXPECT_TRUE(text.starts_with("umbra-stat  viommu  2023-11-14 22:13:20 UTC\n")) << text;
    EXPECT_EQ(text.find("per second"), std::string::npos);
    EXPECT_EQ(row(text, "  iotlb-page"), "4,000") << text;
}

TEST_F(View, RatesAreThoseOfTheTimeBetween) {
    const snapshot::Snapshot change = difference(before, now);
    const std::string text =
        joined(page({.now = now, .change = change, .seconds = seconds_between(before, now)}));
    EXPECT_EQ(row(text, "  iotlb-page"), "4,000 1,500") << text;
    EXPECT_EQ(row(text, "5 "), "0 1,500 0 0 250 0 17 0 B 2") << text;
    EXPECT_EQ(row(text, "00:05.0"), "translated 5 250 0 0 0 0 B") << text;
    EXPECT_EQ(row(text, "  page"), "2 0 ns 0 ns 0 ns 0 ns 1.4 us 1.4 us") << text;
    const std::string one = line({.now = now, .change = change, .seconds = 2});
    EXPECT_NE(one.find("1,500"), std::string::npos) << one;
    EXPECT_EQ(one.size(), line_heading().size()) << "columns stand under their headings";
}

// A stream may hold anything, and what a terminal gets must not be commands for it.
TEST_F(View, NothingButPrintableText) {
    now.unit = "evil\x1b[2J\r\nname\xc3\xa4";
    for (const std::string& each : page({.now = now, .change = now})) {
        EXPECT_TRUE(std::ranges::all_of(each, [](char letter) {
            return letter >= ' ' && letter <= '~';
        })) << each;
    }
}

TEST_F(View, AnythingCanBeShown) {
    const snapshot::Snapshot filled = testing::filled_snapshot(~std::uint64_t{0} - 1000);
    EXPECT_FALSE(page({.now = filled, .change = filled, .seconds = 1e-9}).empty());
    EXPECT_FALSE(line({.now = filled, .change = filled, .seconds = 1e-9}).empty());
}

}  // namespace
}  // namespace umbra::tools
