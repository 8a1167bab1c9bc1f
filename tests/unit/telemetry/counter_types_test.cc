// SPDX-License-Identifier: GPL-2.0-or-later
//
// The structs that the engine counts in, as the build makes them from umbra.proto. The lists of
// counters here are written by hand, so a counter that its options leave out is noticed.
#include "counter_types.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "plugin/telemetry/json.h"
#include "snapshot_types.h"

namespace umbra::telemetry {
namespace {

struct NamedNumber {
    const char* name;
    std::uint64_t* value;
};

struct NamedCounter {
    const char* name;
    Counter* counter;
};

std::vector<NamedNumber> counts_of(SyncCounters& sync) {
    return {{"global", &sync.syncs.global},
            {"domain", &sync.syncs.domain},
            {"page", &sync.syncs.page},
            {"context", &sync.syncs.context},
            {"attach", &sync.syncs.attach},
            {"replay", &sync.syncs.replay},
            {"memory", &sync.syncs.memory},
            {"retry", &sync.syncs.retry},
            {"tables-compared", &sync.tables_compared},
            {"tables-skipped", &sync.tables_skipped},
            {"entries-changed", &sync.entries_changed},
            {"leaves-mapped", &sync.leaves_mapped},
            {"leaves-unmapped", &sync.leaves_unmapped},
            {"pages-mapped", &sync.pages_mapped},
            {"pages-unmapped", &sync.pages_unmapped},
            {"resizes", &sync.resizes},
            {"invalid-entries", &sync.invalid_entries},
            {"not-ram", &sync.not_ram},
            {"refused-mappings", &sync.refused_mappings},
            {"refused-tables", &sync.refused_tables},
            {"loops", &sync.loops}};
}

std::vector<NamedNumber> counts_of(HostCounters& host) {
    return {{"calls", &host.map.calls},         {"bytes", &host.map.bytes},
            {"failures", &host.map.failures},   {"retries", &host.map.retries},
            {"calls", &host.unmap.calls},       {"bytes", &host.unmap.bytes},
            {"failures", &host.unmap.failures}, {"retries", &host.unmap.retries},
            {"splits", &host.splits},           {"iova-holes", &host.iova_holes}};
}

std::vector<NamedCounter> counts_of(atomic::UnitCounters& unit) {
    return {{"iotlb-page", &unit.invalidations.queue.iotlb_page},
            {"iotlb-domain", &unit.invalidations.registers.iotlb_domain},
            {"register-commands-refused", &unit.register_commands_refused},
            {"tail-writes", &unit.queue.tail_writes},
            {"wait-descriptors", &unit.queue.wait_descriptors},
            {"wait-status", &unit.queue.wait_status},
            {"wait-interrupt", &unit.queue.wait_interrupt},
            {"wait-fence", &unit.queue.wait_fence},
            {"wait-status-lost", &unit.queue.wait_status_lost},
            {"bad-type", &unit.queue.errors.bad_type},
            {"recorded", &unit.faults.recorded},
            {"overflowed", &unit.faults.overflowed},
            {"collapsed", &unit.faults.collapsed},
            {"suppressed", &unit.faults.suppressed}};
}

void expect_member(const std::string& json, const char* name, std::uint64_t value) {
    const std::string member = "\"" + std::string(name) + "\": " + std::to_string(value);
    EXPECT_NE(json.find(member), std::string::npos) << member << " is not in " << json;
}

TEST(CounterTypes, CountsOfTheShadowReachJson) {
    UnitShadowCounters counted;
    std::vector<NamedNumber> counts = counts_of(counted.sync);
    const std::vector<NamedNumber> of_host = counts_of(counted.host);
    counts.insert(counts.end(), of_host.begin(), of_host.end());
    std::uint64_t next = 1000;
    for (const NamedNumber& count : counts) {
        *count.value = next++;
    }
    snapshot::Shadow told;
    fill(told, counted);
    const std::string json = to_json(snapshot::record(told));
    for (const NamedNumber& count : counts) {
        expect_member(json, count.name, *count.value);
    }
}

TEST(CounterTypes, CountsOfTheUnitReachJson) {
    atomic::UnitCounters counted;
    std::uint64_t next = 1000;
    for (const NamedCounter& count : counts_of(counted)) {
        count.counter->add(next++);
    }
    snapshot::Snapshot told;
    fill(told, counted);
    const std::string json = to_json(snapshot::record(told));
    for (const NamedCounter& count : counts_of(counted)) {
        expect_member(json, count.name, count.counter->value());
    }
}

TEST(CounterTypes, EveryCountIsSummedAndCleared) {
    SyncCounters sync;
    HostCounters host;
    for (const NamedNumber& count : counts_of(sync)) {
        *count.value = 2;
    }
    for (const NamedNumber& count : counts_of(host)) {
        *count.value = 2;
    }
    const SyncCounters sync_part = sync;
    const HostCounters host_part = host;
    sync += sync_part;
    host += host_part;
    for (const NamedNumber& count : counts_of(sync)) {
        EXPECT_EQ(*count.value, 4U) << count.name;
    }
    for (const NamedNumber& count : counts_of(host)) {
        EXPECT_EQ(*count.value, 4U) << count.name;
    }
    sync.clear();
    host.clear();
    for (const NamedNumber& count : counts_of(sync)) {
        EXPECT_EQ(*count.value, 0U) << count.name;
    }
    for (const NamedNumber& count : counts_of(host)) {
        EXPECT_EQ(*count.value, 0U) << count.name;
    }
}

TEST(CounterTypes, AValueAsOfNowFallsAndItsPeakStays) {
    HostCounters sum;
    HostCounters part;
    part.live_mappings = 5;
    sum += part;
    part.live_mappings = std::uint64_t{0} - 2;
    sum += part;
    EXPECT_EQ(sum.live_mappings, 3U);
    EXPECT_EQ(sum.live_mappings_peak, 5U);
    sum.clear();
    EXPECT_EQ(sum.live_mappings, 3U);
    EXPECT_EQ(sum.live_mappings_peak, 3U);
}

TEST(CounterTypes, AnEnumerationIndexesItsStruct) {
    SyncTriggers syncs;
    syncs[SyncTrigger::memory] = 7;
    EXPECT_EQ(syncs.memory, 7U);
    EXPECT_STREQ(name_of(SyncTrigger::memory), "memory");
    atomic::Invalidations invalidations;
    invalidations[InvalidationPath::registers][InvalidationKind::interrupt_index].add(3);
    EXPECT_EQ(invalidations.registers.interrupt_index.value(), 3U);
    EXPECT_TRUE(invalidations.any());
    invalidations.clear();
    EXPECT_FALSE(invalidations.any());
}

}  // namespace
}  // namespace umbra::telemetry
