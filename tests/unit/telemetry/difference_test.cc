// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/tools/difference.h"

#include <gtest/gtest.h>

#include <string>

#include "plugin/telemetry/json.h"
#include "plugin/telemetry/schema.h"
#include "tests/unit/telemetry/samples.h"

namespace umbra::tools {
namespace {

namespace schema = telemetry::schema;
namespace snapshot = telemetry::snapshot;
using testing::filled_snapshot;

// Every number that counts up is 0 if nothing happened, every other one is as it was.
void expect_nothing_happened(const schema::Record& change, const schema::Record& now) {
    for (const schema::Field& field : change.fields()) {
        switch (field.kind) {
            case schema::Kind::integer:
                EXPECT_EQ(change.integer(field),
                          field.gauge || field.meta || field.key ? now.integer(field) : 0)
                    << change.message().name << "." << field.name;
                break;
            case schema::Kind::enumeration:
                EXPECT_EQ(change.integer(field), now.integer(field));
                break;
            case schema::Kind::text:
                EXPECT_EQ(change.text(field), now.text(field));
                break;
            case schema::Kind::message:
                expect_nothing_happened(change.record(field), now.record(field));
                break;
            case schema::Kind::list:
                ASSERT_EQ(change.size(field), now.size(field));
                for (std::size_t i = 0; i < now.size(field); ++i) {
                    expect_nothing_happened(change.at(field, i), now.at(field, i));
                }
                break;
        }
    }
}

TEST(Difference, OfTheSame) {
    const snapshot::Snapshot now = filled_snapshot();
    const snapshot::Snapshot change = difference(now, now);
    expect_nothing_happened(snapshot::record(change), snapshot::record(now));
    EXPECT_EQ(seconds_between(now, now), 0);
}

TEST(Difference, SubtractsCountersAndKeepsGauges) {
    const snapshot::Snapshot before = filled_snapshot();
    snapshot::Snapshot now = before;
    now.taken_ns += 2'500'000'000;
    now.invalidations.queue.iotlb_page += 40;
    now.shadow.host.live_mappings = 3;
    now.shadow.lock_hold.count += 2;
    now.shadow.lock_hold.buckets[1].count += 2;
    now.faults.reasons[1].value += 5;
    const snapshot::Snapshot change = difference(before, now);
    EXPECT_EQ(seconds_between(before, now), 2.5);
    EXPECT_EQ(seconds_between(now, before), 0);
    EXPECT_EQ(change.invalidations.queue.iotlb_page, 40u);
    EXPECT_EQ(change.invalidations.queue.iotlb_domain, 0u);
    EXPECT_EQ(change.shadow.host.live_mappings, 3u);
    EXPECT_EQ(change.shadow.lock_hold.count, 2u);
    EXPECT_EQ(change.shadow.lock_hold.buckets[0].count, 0u);
    EXPECT_EQ(change.shadow.lock_hold.buckets[1].count, 2u);
    EXPECT_EQ(change.shadow.lock_hold.max, now.shadow.lock_hold.max);
    EXPECT_EQ(change.faults.reasons[0].value, 0u);
    EXPECT_EQ(change.faults.reasons[1].value, 5u);
}

TEST(Difference, ElementsAreMatchedByTheirKeys) {
    snapshot::Snapshot before = testing::empty_snapshot();
    before.domains = {{.domain = 2, .page_invalidations = 10},
                      {.domain = 4, .page_invalidations = 20}};
    before.shadow.domains = {{.domain = 2, .root = 0x1000, .levels = 4},
                             {.domain = 2, .root = 0x2000, .levels = 4}};
    before.shadow.domains[0].host.map.calls = 100;
    before.shadow.domains[1].host.map.calls = 200;
    snapshot::Snapshot now = before;
    now.domains = {{.domain = 1, .page_invalidations = 7}, {.domain = 4, .page_invalidations = 21}};
    now.shadow.domains.erase(now.shadow.domains.begin());
    now.shadow.domains[0].host.map.calls = 203;
    const snapshot::Snapshot change = difference(before, now);
    ASSERT_EQ(change.domains.size(), 2u);
    EXPECT_EQ(change.domains[0].domain, 1u);
    EXPECT_EQ(change.domains[0].page_invalidations, 7u) << "new: counts from 0";
    EXPECT_EQ(change.domains[1].domain, 4u);
    EXPECT_EQ(change.domains[1].page_invalidations, 1u);
    ASSERT_EQ(change.shadow.domains.size(), 1u);
    EXPECT_EQ(change.shadow.domains[0].host.map.calls, 3u);
}

TEST(Difference, AfterAClearEverythingCountsFromZero) {
    const snapshot::Snapshot before = filled_snapshot();
    snapshot::Snapshot now = filled_snapshot(50);
    now.counting_since_ns = before.taken_ns + 1;
    EXPECT_EQ(telemetry::to_json(snapshot::record(difference(before, now))),
              telemetry::to_json(snapshot::record(now)));
    snapshot::Snapshot other = before;
    other.unit = "other";
    EXPECT_EQ(difference(before, other).queue.tail_writes, before.queue.tail_writes);
}

TEST(Difference, ACounterThatFellCountsFromZero) {
    snapshot::Snapshot before = testing::empty_snapshot();
    before.queue.tail_writes = 100;
    snapshot::Snapshot now = before;
    now.queue.tail_writes = 30;
    EXPECT_EQ(difference(before, now).queue.tail_writes, 30u);
}

}  // namespace
}  // namespace umbra::tools
