// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/bridge/snapshot.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "counter_types.h"
#include "plugin/telemetry/json.h"
#include "plugin/telemetry/schema.h"
#include "plugin/telemetry/wire.h"
#include "tests/support/fake_machine.h"

namespace umbra::bridge {
namespace {

namespace schema = telemetry::schema;
namespace snapshot = telemetry::snapshot;

class SnapshotTest : public ::testing::Test {
  protected:
    [[nodiscard]] snapshot::Snapshot take() const {
        const UmbraSnapshotStamp stamp = {"viommu", 0, 0, 0};
        return take_snapshot(stamp, {}, counters, machine.manager);
    }
    [[nodiscard]] std::string json() const {
        const snapshot::Snapshot taken = take();
        return telemetry::to_json(snapshot::record(taken));
    }

    vtd::Counters counters;
    testing::FakeMachine machine;
};

template <class Struct>
std::set<std::string_view> names_of() {
    std::set<std::string_view> names;
    for (const schema::Field& field : snapshot::schema_of<Struct>().fields) {
        names.insert(field.name);
    }
    return names;
}

// Counters that the engine keeps in arrays are filled in by name.
TEST_F(SnapshotTest, UmbraProtoHasAFieldForEachName) {
    std::set<std::string_view> kinds;
    for (std::size_t i = 0; i < vtd::kInvalidationKinds; ++i) {
        kinds.insert(name_of(static_cast<vtd::InvalidationKind>(i)));
    }
    EXPECT_EQ(names_of<snapshot::InvalidationKinds>(), kinds);
    std::set<std::string_view> errors;
    for (std::size_t i = 0; i < vtd::kQueueErrors; ++i) {
        errors.insert(name_of(static_cast<vtd::QueueError>(i)));
    }
    EXPECT_EQ(names_of<snapshot::QueueErrors>(), errors);
    std::set<std::string_view> triggers;
    for (std::size_t i = 0; i < telemetry::kSyncTriggers; ++i) {
        triggers.insert(name_of(static_cast<telemetry::SyncTrigger>(i)));
    }
    EXPECT_EQ(names_of<snapshot::SyncTriggers>(), triggers);
    EXPECT_EQ(names_of<snapshot::SyncLatencies>(), triggers);
}

TEST_F(SnapshotTest, NamesWhatWasCounted) {
    counters.invalidation(vtd::InvalidationKind::iotlb_page, vtd::InvalidationPath::queue).add(7);
    counters.invalidation(vtd::InvalidationKind::iotlb_global, vtd::InvalidationPath::registers)
        .add(2);
    counters.queue.errors[vtd::QueueError::bad_type].add(4);
    counters.fault(vtd::FaultReason::write_denied).add(3);
    counters.fault(vtd::FaultReason::interrupt_source_refused).add();
    counters.domains.at(DomainId{5}).iotlb_hits.add(~std::uint64_t{0});
    counters.domains.at(DomainId{0xffff}).faults.add(2);

    const std::string text = json();
    for (const char* part : {
             R"("version": 1, "unit": "viommu")",
             R"("iotlb-page": 7, "device-tlb": 0)",
             (R"("registers": {"context-global": 0, "context-domain": 0, "context-device": 0, )"
              R"("iotlb-global": 2,)"),
             R"("errors": {"tail-out-of-range": 0, "fetch-failed": 0, "bad-type": 4,)",
             R"("reasons": {"write-denied": 3, "interrupt-source-refused": 1})",
             R"("hits": 18446744073709551615)",
             R"("domains": [{"domain": 5, "iotlb-hits": 18446744073709551615, )",
             R"(}, {"domain": 65535, "iotlb-hits": 0, )",
         }) {
        EXPECT_NE(text.find(part), std::string::npos) << part << " is not in " << text;
    }
}

TEST_F(SnapshotTest, ListsAreBoundedAndSumsAreNot) {
    for (unsigned id = 0; id < 65536; ++id) {
        counters.domains.at(static_cast<DomainId>(id)).iotlb_hits.add(~std::uint64_t{0} >> 20);
        counters.domains.at(static_cast<DomainId>(id)).iotlb_misses.add(2);
    }
    const snapshot::Snapshot taken = take();
    EXPECT_EQ(taken.domains.size(), kMostListed);
    EXPECT_EQ(taken.domains_omitted, 65536 - kMostListed);
    EXPECT_EQ(taken.iotlb.misses, 2 * 65536u);
    EXPECT_LT(telemetry::encode(snapshot::record(taken)).size(), telemetry::kMaxMessageBytes / 4);
}

}  // namespace
}  // namespace umbra::bridge
