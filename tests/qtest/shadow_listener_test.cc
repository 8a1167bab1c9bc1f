// SPDX-License-Identifier: GPL-2.0-or-later
//
// Listeners that come, go and come back while pages are mapped.
#include "plugin/probe/registers.h"
#include "tests/qtest/shadow_fixture.h"

namespace umbra::qtest {
namespace {

class ShadowListener : public ShadowFixture {};
UMBRA_ON_EACH_VIOMMU(ShadowListener);

TEST_P(ShadowListener, ListenerThatArrivesLateIsToldOfWhatIsMapped) {
    Listening on(options());
    on.table.map_pages(kIova, kData, 8);
    on.submit(Descriptor::iotlb_domain(kDomain));
    on.rig.probe.listen(false);
    EXPECT_TRUE(on.live().empty());
    on.rig.probe.listen(true);
    EXPECT_EQ(on.live(), Mappings{mapping(kIova, kData, 8 * kPageSize)});
}

TEST_P(ShadowListener, ListenerThatComesBackWhileAnEntryIsClearedButNotInvalidated) {
    Listening on(options());
    on.rig.driver.attach(kSecondProbe, on.table, kDomain);
    on.submit(Descriptor::context_device(kOtherDomain, kSecondProbe));
    on.table.map_pages(kIova, kData, 4);
    on.submit(Descriptor::iotlb_domain(kDomain));
    on.table.unmap(kIova + kPageSize);
    // A replay for one listener must not make the unit forget what the other one still has.
    on.rig.second.listen(false);
    on.rig.second.listen(true);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova + kPageSize, 0));
    const Mappings expected = {
        mapping(kIova, kData, kPageSize),
        mapping(kIova + 2 * kPageSize, kData + 2 * kPageSize, 2 * kPageSize)};
    expect("gone at the listener that stayed", on.live(), expected);
    expect("gone at the listener that came back", joined(on.rig.second.live_mappings()), expected);
}

// Benchmarks subtract nothing, but show these notifications as the listener's part of a figure.
TEST_P(ShadowListener, RehearsedNotificationsAreCountedAndNeedNoRules) {
    for (const bool rules : {false, true}) {
        Rig rig(options(), rules ? ",listen=on" : ",listen=on,vfio-rules=off");
        const SecondStage table = rig.driver.new_table();
        rig.driver.attach(kProbe, table, kDomain);
        rig.driver.enable_translation();
        rig.probe.clear_counters();
        rig.probe.set(UMBRA_PROBE_REHEARSE, 3);
        EXPECT_EQ(rig.probe.get(UMBRA_PROBE_LISTEN_MAPS), rules ? 0u : 3u);
        EXPECT_EQ(rig.probe.get(UMBRA_PROBE_LISTEN_MAPPED_BYTES), rules ? 0u : 3 * kPageSize);
        EXPECT_EQ(rig.probe.get(UMBRA_PROBE_REHEARSE_NS) == 0, rules);
        EXPECT_EQ(rig.probe.get(UMBRA_PROBE_LIVE_MAPPINGS), 0u);
    }
}

}  // namespace
}  // namespace umbra::qtest
