// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/tools/open_metrics.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "plugin/telemetry/distribution.h"
#include "tests/unit/telemetry/metrics_judge.h"
#include "tests/unit/telemetry/samples.h"

namespace umbra::tools {
namespace {

namespace snapshot = telemetry::snapshot;

// Whether `line` is a line of `text`.
::testing::AssertionResult has_line(const std::string& text, const std::string& line) {
    if (("\n" + text).find("\n" + line + "\n") != std::string::npos) {
        return ::testing::AssertionSuccess();
    }
    return ::testing::AssertionFailure() << line << " is no line of\n" << text;
}

TEST(OpenMetrics, IsValid) {
    snapshot::Snapshot escaped = testing::empty_snapshot();
    escaped.unit = "a\\b\"c\nd";
    snapshot::Snapshot same_source = testing::empty_snapshot();
    same_source.shadow.devices.resize(3);
    std::vector<std::string> texts;
    for (const snapshot::Snapshot& data : {testing::filled_snapshot(), testing::empty_snapshot(),
                                           snapshot::Snapshot{}, escaped, same_source}) {
        texts.push_back(to_open_metrics(data));
    }
    const std::vector<std::string> verdicts = testing::judge_metrics(texts);
    for (std::size_t i = 0; i < texts.size(); ++i) {
        EXPECT_EQ(verdicts[i], "") << texts[i];
    }
}

TEST(OpenMetrics, NamesUnitsAndLabels) {
    snapshot::Snapshot data = testing::empty_snapshot();
    data.taken_unix_ns = 1'700'000'000'012'345'678;
    data.invalidations.queue.iotlb_page = 7;
    data.faults.reasons = {{.key = "write-denied", .value = 3}};
    data.shadow.sync.syncs.page = 5;
    data.shadow.sync.mirror_bytes = 8192;
    data.shadow.host.map.bytes = 4096;
    data.shadow.domains.push_back({.domain = 5, .root = 0x1000, .levels = 4});
    data.shadow.domains[0].host.unmap.calls = 11;
    data.shadow.devices.push_back(
        {.source = 0x128, .mode = static_cast<std::uint64_t>(snapshot::Mode::translated)});
    const std::string text = to_open_metrics(data);
    for (const std::string& line : std::vector<std::string>{
             R"(umbra_invalidations_total{unit="viommu",path="queue",kind="iotlb-page"} 7)",
             R"(umbra_taken_unix_seconds{unit="viommu"} 1700000000.012345678)",
             R"(umbra_faults_reasons_total{unit="viommu",reason="write-denied"} 3)",
             R"(umbra_shadow_syncs_total{unit="viommu",trigger="page"} 5)",
             R"(umbra_shadow_mirror_bytes{unit="viommu"} 8192)",
             R"(# UNIT umbra_shadow_mirror_bytes bytes)",
             R"(umbra_shadow_map_bytes_total{unit="viommu"} 4096)",
             std::string("umbra_shadow_domain_unmap_calls_total") +
                 R"({unit="viommu",domain="5",root="0x1000",levels="4"} 11)",
             std::string("umbra_shadow_device_mode") +
                 R"({unit="viommu",source="01:05.0",umbra_shadow_device_mode="translated"} 1)",
             R"(# TYPE umbra_shadow_latency_seconds histogram)",
             R"(# UNIT umbra_shadow_lock_hold_seconds seconds)",
         }) {
        EXPECT_TRUE(has_line(text, line));
    }
    for (const char* left_out : {"umbra_version", "umbra_sequence", "umbra_interval_seconds",
                                 "umbra_taken_seconds", "umbra_counting_since_seconds"}) {
        EXPECT_EQ(text.find(std::string("# TYPE ") + left_out + " "), std::string::npos)
            << left_out;
    }
}

TEST(OpenMetrics, BucketsHoldExactlyWhatTheySay) {
    telemetry::Histogram histogram;
    // On both sides of bounds.
    for (const std::uint64_t value : {1u, 255u, 256u, 511u, 512u, 1u << 20, (1u << 20) - 1}) {
        histogram.record(value);
    }
    histogram.record(std::uint64_t{1} << 50);
    snapshot::Snapshot data = testing::empty_snapshot();
    data.shadow.latency.page.host = telemetry::distribution(histogram);
    const std::string text = to_open_metrics(data);
    const std::string labels = R"({unit="viommu",trigger="page",phase="host")";
    const auto bucket = [&labels](const std::string& bound, const std::string& count) {
        return "umbra_shadow_latency_seconds_bucket" + labels + ",le=\"" + bound + "\"} " + count;
    };
    for (const std::string& line : {
             bucket("0.000000255", "2"),
             bucket("0.000000511", "4"),
             bucket("0.000001023", "5"),
             bucket("0.001048575", "6"),
             bucket("0.002097151", "7"),
             bucket("68.719476735", "7"),
             bucket("+Inf", "8"),
             "umbra_shadow_latency_seconds_sum" + labels + "} 1125899.908941310",
         }) {
        EXPECT_TRUE(has_line(text, line));
    }
}

TEST(OpenMetrics, TextIsEscaped) {
    snapshot::Snapshot data = testing::empty_snapshot();
    data.unit = "a\\b\"c\nd";
    const std::string text = to_open_metrics(data);
    EXPECT_TRUE(has_line(text, R"(umbra_queue_tail_writes_total{unit="a\\b\"c\nd"} 0)"));
}

// Devices on buses that the guest has not numbered yet.
TEST(OpenMetrics, DevicesWithTheSameSource) {
    snapshot::Snapshot data = testing::empty_snapshot();
    data.shadow.devices.resize(3);
    data.shadow.devices[1].attaches = 4;
    const std::string text = to_open_metrics(data);
    EXPECT_TRUE(has_line(text, R"(umbra_shadow_device_attaches_total)"
                               R"({unit="viommu",element="1",source="00:00.0"} 4)"));
}

TEST(MetricsJudge, RefusesWhatTheStandardForbids) {
    const std::string a = "# HELP umbra_a Help\n# TYPE umbra_a counter\n";
    const std::string h = "# HELP umbra_h Help\n# TYPE umbra_h histogram\n";
    const std::vector<std::string> texts = {
        a + "umbra_a_total{x=\"1\"} 1\n# EOF\n",               // valid
        a + "umbra_a_total 1\n",                               // no EOF
        "umbra_a_total 1\n# EOF\n",                            // no family
        a + "umbra_a 1\n# EOF\n",                              // no _total
        a + "umbra_a_total 1\numbra_a_total 1\n# EOF\n",       // twice
        a + "umbra_a_total -1\n# EOF\n",                       // falls
        a + "umbra_a_total{x=\"1\",x=\"2\"} 1\n# EOF\n",       // label twice
        a + "umbra_a_total{x=1} 1\n# EOF\n",                   // no quotes
        a + "umbra_a_total 1\n# HELP umbra_a late\n# EOF\n",   // metadata after samples
        a + "# UNIT umbra_a bytes\numbra_a_total 1\n# EOF\n",  // unit is not in the name
        h + "umbra_h_bucket{le=\"1.0\"} 1\numbra_h_count 1\numbra_h_sum 1\n# EOF\n",
        h + "umbra_h_bucket{le=\"1.0\"} 2\numbra_h_bucket{le=\"+Inf\"} 1\n"
            "umbra_h_count 1\numbra_h_sum 1\n# EOF\n",
    };
    const std::vector<std::string> verdicts = testing::judge_metrics(texts);
    EXPECT_EQ(verdicts[0], "");
    for (std::size_t i = 1; i < texts.size(); ++i) {
        EXPECT_NE(verdicts[i], "") << texts[i];
    }
}

}  // namespace
}  // namespace umbra::tools
