// SPDX-License-Identifier: GPL-2.0-or-later
//
// Host mappings of devices that share a domain, move between domains, or leave translation.
#include <algorithm>

#include "plugin/probe/registers.h"
#include "tests/qtest/shadow_fixture.h"

namespace umbra::qtest {
namespace {

class ShadowDomain : public ShadowFixture {};
UMBRA_ON_EACH_VIOMMU(ShadowDomain);

TEST_P(ShadowDomain, DevicesOfOneDomainGetTheSameMappings) {
    Listening on(options());
    on.rig.driver.attach(kSecondProbe, on.table, kDomain);
    on.submit(Descriptor::context_device(kOtherDomain, kSecondProbe));
    on.table.map_pages(kIova, kData, 8);
    on.submit(Descriptor::iotlb_domain(kDomain));
    const Mappings expected = {mapping(kIova, kData, 8 * kPageSize)};
    EXPECT_EQ(on.live(), expected);
    EXPECT_EQ(joined(on.rig.second.live_mappings()), expected);
    on.table.unmap_pages(kIova, 8);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 3));
    EXPECT_TRUE(on.live().empty());
    EXPECT_TRUE(joined(on.rig.second.live_mappings()).empty());
}

TEST_P(ShadowDomain, DevicesOfOneDomainCostOneWalk) {
    if (!on_umbra()) {
        GTEST_SKIP() << "intel-iommu does not count its walks";
    }
    Listening on(options());
    on.rig.driver.attach(kSecondProbe, on.table, kDomain);
    on.submit(Descriptor::context_device(kOtherDomain, kSecondProbe));
    on.table.map_pages(kIova, kData, 1024);
    on.submit(Descriptor::iotlb_domain(kDomain));
    clear_statistics(on.rig.machine);
    on.table.unmap(kIova);
    on.submit(Descriptor::iotlb_domain(kDomain));
    const Json statistics = statistics_of(on.rig.machine);
    const Json& shadow = statistics.at("shadow");
    EXPECT_EQ(shadow.at("syncs").at("domain"), 1);
    EXPECT_EQ(shadow.at("entries-changed"), 1);
    EXPECT_EQ(shadow.at("pages-unmapped"), 1);
    // Two leaf tables and the three above them, once.
    EXPECT_LE(shadow.at("tables-compared"), 5);
}

TEST_P(ShadowDomain, DeviceMovesBetweenDomains) {
    Listening on(options());
    on.table.map(kIova, kData);
    on.other.map(kIova + kPageSize, kData);
    on.submit(Descriptor::iotlb_global());
    on.rig.driver.attach(kProbe, on.other, kOtherDomain);
    on.submit(Descriptor::context_device(kDomain, kProbe));
    on.submit(Descriptor::iotlb_domain(kDomain));
    EXPECT_EQ(on.live(), Mappings{mapping(kIova + kPageSize, kData, kPageSize)});
    on.rig.driver.contexts().clear(kProbe);
    on.submit(Descriptor::context_device(kOtherDomain, kProbe));
    EXPECT_TRUE(on.live().empty());
    // The other device of that domain keeps its own.
    EXPECT_EQ(joined(on.rig.second.live_mappings()),
              Mappings{mapping(kIova + kPageSize, kData, kPageSize)});
}

TEST_P(ShadowDomain, ContextInvalidationOfOneDomainLeavesTheOthersAlone) {
    Listening on(options());
    on.table.map_pages(kIova, kData, 64);
    on.other.map_pages(kIova, kData, 64);
    on.submit(Descriptor::iotlb_global());
    on.rig.second.clear_counters();
    on.submit(Descriptor::context_domain(kDomain));
    expect("no unmap of another domain's mappings", on.rig.second.get(UMBRA_PROBE_LISTEN_UNMAPS),
           0);
    expect("no map of another domain's mappings", on.rig.second.get(UMBRA_PROBE_LISTEN_MAPS), 0);
    expect("its mappings are as before", joined(on.rig.second.live_mappings()),
           Mappings{mapping(kIova, kData, 64 * kPageSize)});
}

TEST_P(ShadowDomain, GlobalContextInvalidationWithoutAChangeTouchesNothing) {
    Listening on(options());
    on.table.map_pages(kIova, kData, 64);
    on.submit(Descriptor::iotlb_domain(kDomain));
    on.rig.probe.clear_counters();
    on.submit(Descriptor::context_global());
    expect("no live mapping is dropped", on.rig.probe.get(UMBRA_PROBE_LISTEN_UNMAPS), 0);
    expect("no live mapping is made again", on.rig.probe.get(UMBRA_PROBE_LISTEN_MAPS), 0);
    expect("the mappings are as before", on.live(),
           Mappings{mapping(kIova, kData, 64 * kPageSize)});
}

TEST_P(ShadowDomain, PassThroughMapsRamAndBack) {
    Listening on(options());
    on.table.map(kIova, kData);
    on.submit(Descriptor::iotlb_domain(kDomain));
    on.rig.driver.contexts().set(
        kProbe, {.levels = 4, .domain = kDomain, .type = driver::TranslationType::pass_through});
    on.submit(Descriptor::context_device(kDomain, kProbe));
    on.submit(Descriptor::iotlb_domain(kDomain));
    const Mappings ram = on.rig.probe.live_mappings();
    const auto covers_data = [](const LiveMapping& live) {
        return live.iova.value() == live.target.value() && live.iova.value() <= kData.value() &&
               kData.value() < live.iova.value() + live.size;
    };
    EXPECT_TRUE(std::any_of(ram.begin(), ram.end(), covers_data));

    on.rig.driver.attach(kProbe, on.table, kDomain);
    on.submit(Descriptor::context_device(kDomain, kProbe));
    on.submit(Descriptor::iotlb_domain(kDomain));
    EXPECT_EQ(on.live(), Mappings{mapping(kIova, kData, kPageSize)});
}

TEST_P(ShadowDomain, TranslationOffAndOnAgain) {
    Listening on(options());
    on.table.map(kIova, kData);
    on.submit(Descriptor::iotlb_domain(kDomain));
    on.rig.driver.disable_translation();
    for (const LiveMapping& live : on.rig.probe.live_mappings()) {
        EXPECT_EQ(live.iova.value(), live.target.value());
    }
    on.rig.driver.enable_translation();
    EXPECT_EQ(on.live(), Mappings{mapping(kIova, kData, kPageSize)});
}

}  // namespace
}  // namespace umbra::qtest
