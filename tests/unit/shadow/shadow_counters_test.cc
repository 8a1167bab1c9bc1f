// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the shadow counts.
#include <gtest/gtest.h>

#include "tests/unit/shadow/one_device.h"

namespace umbra::testing {
namespace {

using telemetry::SyncTrigger;

TEST_F(OneDevice, CountersOfUnitDomainAndDeviceAgree) {
    tables_.map_pages(Iova(0), kRam, 600);
    machine_.manager.iotlb_domain(kDomain);
    tables_.unmap_pages(Iova(0), 100);
    invalidate(Iova(0), 7);
    const auto& unit = machine_.manager.counters();
    EXPECT_EQ(unit.sync.leaves_mapped, 600U);
    EXPECT_EQ(unit.sync.leaves_unmapped, 100U);
    EXPECT_EQ(unit.sync.leaves, 500U);
    EXPECT_EQ(unit.host.map.calls, device_.recorder.map_calls());
    EXPECT_EQ(unit.host.unmap.calls, device_.recorder.unmap_calls());
    EXPECT_EQ(unit.host.map.bytes - unit.host.unmap.bytes, unit.host.pinned_bytes);
    unsigned domains = 0;
    machine_.manager.visit_domains([&](const shadow::Manager::DomainView& view) {
        ++domains;
        EXPECT_EQ(view.domain, kDomain);
        EXPECT_EQ(view.devices, 1U);
        EXPECT_EQ(view.counters.sync.leaves_mapped, unit.sync.leaves_mapped);
        EXPECT_EQ(view.counters.host.map.calls, unit.host.map.calls);
    });
    EXPECT_EQ(domains, 1U);
    machine_.manager.visit_devices([&](const shadow::Manager::DeviceView& view) {
        EXPECT_EQ(view.source, kDevice);
        EXPECT_EQ(view.counters.host.map.calls, unit.host.map.calls);
        EXPECT_EQ(view.counters.host.pinned_bytes, unit.host.pinned_bytes);
        EXPECT_EQ(view.counters.attaches, 1U);
    });
    machine_.manager.clear_counters();
    EXPECT_EQ(unit.sync.leaves_mapped, 0U);
    EXPECT_EQ(unit.host.map.calls, 0U);
    EXPECT_EQ(unit.sync.leaves, 500U);
    EXPECT_EQ(unit.host.pinned_bytes, 500 * kPageSize);
}

TEST_F(OneDevice, LatencyIsRecordedByTrigger) {
    machine_.clock.step = 10;
    invalidate(Iova(0));
    machine_.manager.iotlb_domain(kDomain);
    const auto& latency = machine_.manager.counters().latency;
    EXPECT_EQ(latency[SyncTrigger::page].total.count(), 1U);
    EXPECT_EQ(latency[SyncTrigger::domain].total.count(), 1U);
    EXPECT_GT(latency[SyncTrigger::domain].compare.max(), 0U);
}

TEST_F(OneDevice, TablesWithoutAPresentEntryAreSkipped) {
    tables_.map_pages(Iova(0), kRam, 4);
    machine_.manager.iotlb_domain(kDomain);
    tables_.unmap_pages(Iova(0), 4);
    machine_.manager.iotlb_domain(kDomain);
    const std::uint64_t skipped = machine_.manager.counters().sync.tables_skipped;
    // Not present, whatever else is in it.
    tables_.entry(Iova(0), 1) = 0xabcd'0000;
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_EQ(machine_.manager.counters().sync.tables_skipped, skipped + 1);
}

}  // namespace
}  // namespace umbra::testing
