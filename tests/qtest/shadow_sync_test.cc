// SPDX-License-Identifier: GPL-2.0-or-later
//
// The host mappings of a passed-through device that an invalidation changes or leaves alone.
#include <chrono>
#include <random>
#include <set>

#include "plugin/probe/registers.h"
#include "tests/qtest/shadow_fixture.h"

namespace umbra::qtest {
namespace {

class ShadowSync : public ShadowFixture {};
UMBRA_ON_EACH_VIOMMU(ShadowSync);

TEST_P(ShadowSync, PagesAreMappedAndUnmappedByPageSelectiveInvalidation) {
    Listening on(options());
    on.table.map_pages(kIova, kData, 16);
    EXPECT_TRUE(on.live().empty()) << "before the guest has said so";
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 4));
    EXPECT_EQ(on.live(), Mappings{mapping(kIova, kData, 16 * kPageSize)});
    EXPECT_EQ(on.rig.probe.get(UMBRA_PROBE_LISTEN_MAPPED_BYTES), 16 * kPageSize);

    on.table.unmap_pages(kIova + 4 * kPageSize, 4);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova + 4 * kPageSize, 2));
    const Mappings rest = {mapping(kIova, kData, 4 * kPageSize),
                           mapping(kIova + 8 * kPageSize, kData + 8 * kPageSize, 8 * kPageSize)};
    EXPECT_EQ(on.live(), rest);
    EXPECT_TRUE(joined(on.rig.second.live_mappings()).empty());
    EXPECT_EQ(on.rig.probe.get(UMBRA_PROBE_REFUSED_BISECT), 0u);
}

TEST_P(ShadowSync, DomainSelectiveInvalidationFindsEveryChange) {
    Listening on(options());
    on.table.map_pages(kIova, kData, 1024);
    on.submit(Descriptor::iotlb_domain(kDomain));
    EXPECT_EQ(on.live(), Mappings{mapping(kIova, kData, 1024 * kPageSize)});
    Mappings expected;
    for (std::size_t i = 0; i < 1024; i++) {
        if (i % 4 == 1) {
            on.table.unmap(kIova + i * kPageSize);
        } else {
            expected.push_back(mapping(kIova + i * kPageSize, kData + i * kPageSize, kPageSize));
        }
    }
    on.submit(Descriptor::iotlb_domain(kDomain));
    EXPECT_EQ(on.live(), joined(expected));
}

TEST_P(ShadowSync, GlobalInvalidationReachesEveryDomain) {
    Listening on(options());
    on.table.map(kIova, kData);
    on.other.map(kIova, kData + kPageSize);
    on.submit(Descriptor::iotlb_global());
    EXPECT_EQ(on.live(), Mappings{mapping(kIova, kData, kPageSize)});
    EXPECT_EQ(joined(on.rig.second.live_mappings()),
              Mappings{mapping(kIova, kData + kPageSize, kPageSize)});
}

TEST_P(ShadowSync, OnlyWhatChangedIsTouched) {
    constexpr std::size_t kPages = 2048;
    Listening on(options());
    for (std::size_t i = 0; i < kPages; i++) {
        on.table.map(kIova + i * kPageSize, kData + (kPages - i) * kPageSize);
    }
    on.submit(Descriptor::iotlb_domain(kDomain));
    on.rig.probe.clear_counters();
    on.table.unmap(kIova + 777 * kPageSize);
    on.table.map(kIova + kPages * kPageSize, kData);
    on.submit(Descriptor::iotlb_domain(kDomain));
    expect("one page unmapped", on.rig.probe.get(UMBRA_PROBE_LISTEN_UNMAPPED_BYTES), kPageSize);
    expect("one page mapped", on.rig.probe.get(UMBRA_PROBE_LISTEN_MAPPED_BYTES), kPageSize);
    on.rig.probe.clear_counters();
    on.submit(Descriptor::iotlb_domain(kDomain));
    on.submit(Descriptor::iotlb_global());
    expect("no unmap where nothing changed", on.rig.probe.get(UMBRA_PROBE_LISTEN_UNMAPS), 0);
    expect("no map where nothing changed", on.rig.probe.get(UMBRA_PROBE_LISTEN_MAPS), 0);
}

TEST_P(ShadowSync, SpanningUnmapOfScatteredPagesLeavesNothingBehind) {
    Listening on(options());
    std::mt19937_64 random(1);
    std::set<std::size_t> pages;
    while (pages.size() < 256) {
        pages.insert(random() % 65536);
    }
    for (const std::size_t page : pages) {
        on.table.map(kIova + page * kPageSize, kData + page * kPageSize);
    }
    on.submit(Descriptor::iotlb_domain(kDomain));
    EXPECT_EQ(on.rig.probe.get(UMBRA_PROBE_LIVE_BYTES), 256 * kPageSize);
    for (const std::size_t page : pages) {
        on.table.unmap(kIova + page * kPageSize);
    }
    on.submit(Descriptor::iotlb_domain(kDomain));
    expect("everything is unmapped", on.live(), {});
    expect_no_refusal(on.rig.probe);
}

TEST_P(ShadowSync, ClearedButNotYetInvalidatedEntryIsUnmappedInTheEnd) {
    Listening on(options());
    on.table.map_pages(kIova, kData, 4);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 2));
    on.table.unmap(kIova + kPageSize);
    // Something else makes the unit look at the tables before the guest invalidates that page.
    on.submit(Descriptor::context_device(kDomain, kProbe));
    on.submit(Descriptor::iotlb_pages(kDomain, kIova + kPageSize, 0));
    const Mappings expected = {
        mapping(kIova, kData, kPageSize),
        mapping(kIova + 2 * kPageSize, kData + 2 * kPageSize, 2 * kPageSize)};
    expect("the cleared page's mapping is gone", on.live(), expected);
    expect_no_refusal(on.rig.probe);
}

TEST_P(ShadowSync, TablesThatPointToThemselvesDoNotHoldQemu) {
    Listening on(options());
    // Each entry of the root is the root: 2^36 leaves, all of them the root's own page.
    for (std::uint64_t i = 0; i < kEntriesPerTable; i++) {
        on.rig.machine.store64(on.table.root() + i * 8,
                               on.table.root().value() | driver::kEntryReadWrite);
    }
    if (!on_umbra()) {
        on.rig.machine.set_answer_limit(std::chrono::seconds(3));
        bool answers = true;
        try {
            static_cast<void>(on.rig.driver.submit(Descriptor::iotlb_domain(kDomain)));
        } catch (const TransportError&) {
            answers = false;
        }
        note("QEMU answers within 3 s", answers);
        return;
    }
    on.submit(Descriptor::iotlb_domain(kDomain));
    EXPECT_TRUE(on.rig.machine.runs());

    // The other domain is served as before.
    on.other.map(kIova, kData);
    on.submit(Descriptor::iotlb_pages(kOtherDomain, kIova, 0));
    EXPECT_EQ(joined(on.rig.second.live_mappings()), Mappings{mapping(kIova, kData, kPageSize)});

    // And this domain heals once its tables are right.
    for (std::uint64_t i = 0; i < kEntriesPerTable; i++) {
        on.rig.machine.store64(on.table.root() + i * 8, 0);
    }
    on.table.map(kIova, kData);
    on.submit(Descriptor::iotlb_domain(kDomain));
    EXPECT_EQ(on.live(), Mappings{mapping(kIova, kData, kPageSize)});
}

TEST_P(ShadowSync, VerifyTellsWhatTheGuestHasYetToInvalidateFromErrors) {
    if (!on_umbra()) {
        GTEST_SKIP() << "intel-iommu has no such check";
    }
    Listening on(options());
    on.table.map_pages(kIova, kData, 8);
    on.submit(Descriptor::iotlb_domain(kDomain));
    const auto verify = [&] { return verification_of(on.rig.machine); };
    const Json clean = verify();
    EXPECT_TRUE(clean.at("clean").get<bool>());
    EXPECT_GE(clean.at("pages-checked"), 8);

    on.table.unmap(kIova + 3 * kPageSize);
    const Json pending = verify();
    EXPECT_EQ(pending.at("errors"), 0);
    EXPECT_EQ(pending.at("pending"), 1);
    ASSERT_EQ(pending.at("differences").size(), 1u);
    EXPECT_EQ(pending.at("differences").at(0).at("iova"), "0x40003000");
    EXPECT_EQ(pending.at("differences").at(0).at("expected").at("access"), "none");
    EXPECT_EQ(pending.at("differences").at(0).at("actual").at("access"), "read-write");

    on.submit(Descriptor::iotlb_pages(kDomain, kIova + 3 * kPageSize, 0));
    EXPECT_TRUE(verify().at("clean").get<bool>());
}

}  // namespace
}  // namespace umbra::qtest
