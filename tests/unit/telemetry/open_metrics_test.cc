// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/tools/open_metrics.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "plugin/telemetry/distribution.h"
#include "tests/unit/telemetry/metrics_parser.h"
#include "tests/unit/telemetry/samples.h"

namespace umbra::tools {
namespace {

namespace snapshot = telemetry::snapshot;
using testing::MetricFamily;
using testing::parse_metrics;
using Labels = std::map<std::string, std::string>;

std::string value_of(const std::map<std::string, MetricFamily>& families, const std::string& family,
                     const std::string& name, const Labels& labels) {
    const auto found = families.find(family);
    if (found != families.end()) {
        for (const testing::Metric& metric : found->second.metrics) {
            if (metric.name == name && metric.labels == labels) {
                return metric.value;
            }
        }
    }
    return "nothing called " + name;
}

TEST(OpenMetrics, IsValid) {
    for (const snapshot::Snapshot& data :
         {testing::filled_snapshot(), testing::empty_snapshot(), snapshot::Snapshot{}}) {
        const std::string text = to_open_metrics(data);
        try {
            for (const auto& [name, family] : parse_metrics(text)) {
                EXPECT_TRUE(name.starts_with("umbra_")) << name;
                EXPECT_FALSE(family.help.empty()) << name << " is not explained";
            }
        } catch (const testing::MetricsError& error) {
            ADD_FAILURE() << error.what() << "\n" << text;
        }
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
    const auto all = parse_metrics(to_open_metrics(data));
    EXPECT_EQ(value_of(all, "umbra_invalidations", "umbra_invalidations_total",
                       {{"unit", "viommu"}, {"path", "queue"}, {"kind", "iotlb-page"}}),
              "7");
    EXPECT_EQ(
        value_of(all, "umbra_taken_unix_seconds", "umbra_taken_unix_seconds", {{"unit", "viommu"}}),
        "1700000000.012345678");
    EXPECT_EQ(value_of(all, "umbra_faults_reasons", "umbra_faults_reasons_total",
                       {{"unit", "viommu"}, {"reason", "write-denied"}}),
              "3");
    EXPECT_EQ(value_of(all, "umbra_shadow_syncs", "umbra_shadow_syncs_total",
                       {{"unit", "viommu"}, {"trigger", "page"}}),
              "5");
    EXPECT_EQ(value_of(all, "umbra_shadow_mirror_bytes", "umbra_shadow_mirror_bytes",
                       {{"unit", "viommu"}}),
              "8192");
    EXPECT_EQ(all.at("umbra_shadow_mirror_bytes").unit, "bytes");
    EXPECT_EQ(value_of(all, "umbra_shadow_map_bytes", "umbra_shadow_map_bytes_total",
                       {{"unit", "viommu"}}),
              "4096");
    EXPECT_EQ(
        value_of(all, "umbra_shadow_domain_unmap_calls", "umbra_shadow_domain_unmap_calls_total",
                 {{"unit", "viommu"}, {"domain", "5"}, {"root", "0x1000"}, {"levels", "4"}}),
        "11");
    EXPECT_EQ(value_of(all, "umbra_shadow_device_mode", "umbra_shadow_device_mode",
                       {{"unit", "viommu"},
                        {"source", "01:05.0"},
                        {"umbra_shadow_device_mode", "translated"}}),
              "1");
    EXPECT_EQ(all.at("umbra_shadow_latency_seconds").type, "histogram");
    EXPECT_EQ(all.at("umbra_shadow_lock_hold_seconds").unit, "seconds");
    for (const char* left_out : {"umbra_version", "umbra_sequence", "umbra_interval_seconds",
                                 "umbra_taken_seconds", "umbra_counting_since_seconds"}) {
        EXPECT_FALSE(all.contains(left_out)) << left_out;
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
    const auto all = parse_metrics(to_open_metrics(data));
    const auto bucket = [&all](const std::string& bound) {
        return value_of(
            all, "umbra_shadow_latency_seconds", "umbra_shadow_latency_seconds_bucket",
            {{"unit", "viommu"}, {"trigger", "page"}, {"phase", "host"}, {"le", bound}});
    };
    EXPECT_EQ(bucket("0.000000255"), "2");
    EXPECT_EQ(bucket("0.000000511"), "4");
    EXPECT_EQ(bucket("0.000001023"), "5");
    EXPECT_EQ(bucket("0.001048575"), "6");
    EXPECT_EQ(bucket("0.002097151"), "7");
    EXPECT_EQ(bucket("68.719476735"), "7");
    EXPECT_EQ(bucket("+Inf"), "8");
    EXPECT_EQ(value_of(all, "umbra_shadow_latency_seconds", "umbra_shadow_latency_seconds_sum",
                       {{"unit", "viommu"}, {"trigger", "page"}, {"phase", "host"}}),
              "1125899.908941310");
}

TEST(OpenMetrics, TextIsEscaped) {
    snapshot::Snapshot data = testing::empty_snapshot();
    data.unit = "a\\b\"c\nd";
    const auto all = parse_metrics(to_open_metrics(data));
    EXPECT_EQ(value_of(all, "umbra_queue_tail_writes", "umbra_queue_tail_writes_total",
                       {{"unit", "a\\b\"c\nd"}}),
              "0");
}

// Devices on buses that the guest has not numbered yet.
TEST(OpenMetrics, DevicesWithTheSameSource) {
    snapshot::Snapshot data = testing::empty_snapshot();
    data.shadow.devices.resize(3);
    data.shadow.devices[1].attaches = 4;
    const auto all = parse_metrics(to_open_metrics(data));
    EXPECT_EQ(value_of(all, "umbra_shadow_device_attaches", "umbra_shadow_device_attaches_total",
                       {{"unit", "viommu"}, {"source", "00:00.0"}, {"element", "1"}}),
              "4");
}

TEST(StrictParser, RefusesWhatTheStandardForbids) {
    const std::string counter = "# TYPE a counter\n";
    for (const std::string& text : {
             std::string("# TYPE a counter\na_total 1\n"),     // no EOF
             std::string("a_total 1\n# EOF\n"),                // no family
             counter + "a 1\n# EOF\n",                         // no _total
             counter + "a_total 1\na_total 1\n# EOF\n",        // twice
             counter + "a_total -1\n# EOF\n",                  // falls
             counter + "a_total{x=\"1\",x=\"2\"} 1\n# EOF\n",  // label twice
             counter + "a_total{x=1} 1\n# EOF\n",              // no quotes
             counter + "a_total 1\n# HELP a late\n# EOF\n",    // metadata after samples
             counter + "# UNIT a bytes\na_total 1\n# EOF\n",   // unit is not in the name
             std::string("# TYPE h histogram\nh_bucket{le=\"1.0\"} 1\nh_count 1\nh_sum 1\n# EOF\n"),
             std::string("# TYPE h histogram\nh_bucket{le=\"1.0\"} 2\nh_bucket{le=\"+Inf\"} 1\n"
                         "h_count 1\nh_sum 1\n# EOF\n"),
         }) {
        EXPECT_THROW((void)parse_metrics(text), testing::MetricsError) << text;
    }
    EXPECT_NO_THROW((void)parse_metrics(counter + "a_total{x=\"1\"} 1\n# EOF\n"));
}

}  // namespace
}  // namespace umbra::tools
