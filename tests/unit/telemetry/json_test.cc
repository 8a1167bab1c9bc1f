// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/telemetry/json.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <string_view>

#include "snapshot_types.h"

namespace umbra::telemetry {
namespace {

void expect_part(const std::string& json, const std::string& part) {
    EXPECT_NE(json.find(part), std::string::npos) << part << " is not in\n" << json;
}

TEST(Json, WhatIsZeroIsThere) {
    const snapshot::Snapshot data;
    const std::string json = to_json(snapshot::record(data));
    expect_part(json, R"({"version": 0, "unit": "", "sequence": 0, )");
    expect_part(json, R"("faults": {"recorded": 0, "overflowed": 0, "collapsed": 0, )"
                      R"("suppressed": 0, "reasons": {}}, "iotlb": {"hits": 0, "misses": 0}, )"
                      R"("domains": [], )");
    expect_part(json, R"("latency": {"global": {"compare": {"buckets": [], "count": 0, )"
                      R"("sum": 0, "max": 0, "mean": 0, "p50": 0, "p90": 0, "p99": 0}, "host": )");
}

TEST(Json, FormsOfValues) {
    snapshot::Snapshot data;
    data.unit = "a\"b\\c\n";
    data.taken_ns = ~std::uint64_t{0};
    data.faults.reasons = {{.key = "write-denied", .value = 3}, {.key = "loop", .value = 1}};
    data.shadow.domains.push_back({.domain = 5, .root = 0x1f000, .levels = 4, .devices = 2});
    data.shadow.domains[0].host.map.calls = 9;
    data.shadow.devices.push_back(
        {.source = 0x28, .mode = static_cast<std::uint64_t>(snapshot::Mode::pass_through)});
    data.shadow.lock_hold = {.buckets = {{.up_to = 7, .count = 3}, {.up_to = 19, .count = 1}},
                             .count = 4,
                             .sum = 30,
                             .max = 18};
    const std::string json = to_json(snapshot::record(data));
    expect_part(json, "\"unit\": \"a\\\"b\\\\c\\u000a\"");
    expect_part(json, R"("taken-ns": 18446744073709551615)");
    expect_part(json, R"("reasons": {"write-denied": 3, "loop": 1})");
    expect_part(json, R"("domains": [{"domain": 5, "root": "0x1f000", "levels": 4, "devices": 2, )"
                      R"("syncs": {"global": 0, )");
    expect_part(json, R"("map": {"calls": 9, "bytes": 0, "failures": 0, "retries": 0})");
    expect_part(json, R"({"source": 40, "mode": "pass-through", "domain": 0, )");
    expect_part(json, R"("lock-hold": {"buckets": [{"up-to": 7, "count": 3}, {"up-to": 19, )"
                      R"("count": 1}], "count": 4, "sum": 30, "max": 18, "mean": 7, "p50": 7, )"
                      R"("p90": 18, "p99": 18})");
}

// Members are told apart by name, also where fields of a part stand beside those of its owner.
void expect_unique_names(const schema::Message& message, std::set<std::string_view>& names) {
    for (const schema::Field& field : message.fields) {
        if (field.inlined) {
            expect_unique_names(*field.message, names);
        } else {
            EXPECT_TRUE(names.insert(field.name).second) << message.name << "." << field.name;
        }
        if (field.message != nullptr && !field.inlined) {
            std::set<std::string_view> inner;
            expect_unique_names(*field.message, inner);
        }
    }
}

TEST(Json, NamesAreUnique) {
    std::set<std::string_view> names;
    expect_unique_names(snapshot::schema_of<snapshot::Snapshot>(), names);
}

}  // namespace
}  // namespace umbra::telemetry
