// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a passed-through device's host mappings look like after each thing that a guest may do to
// its tables. Probes listen as VFIO does and apply type1v2's rules: a map over a live mapping and
// an unmap that would cut one are refused.
//
// On Umbra every expectation is asserted. On QEMU's intel-iommu the outcome is printed and recorded
// as a property of the test, and is no failure: these are cases that it is known to get wrong.
#include <iostream>
#include <random>
#include <set>

#include "plugin/probe/registers.h"
#include "tests/qtest/viommu_test.h"

namespace umbra::qtest {
namespace {

constexpr Iova kIova(0x4000'0000);
constexpr unsigned kReadWrite = 3;

using Mappings = std::vector<LiveMapping>;

LiveMapping mapping(Iova iova, Gpa target, std::uint64_t size, unsigned permissions = kReadWrite) {
    return {.iova = iova, .size = size, .target = target, .permissions = permissions};
}

class Shadow : public ViommuTest {
  protected:
    // kProbe listens in kDomain, kSecondProbe in kOtherDomain; translation is on, nothing mapped.
    struct Listening {
        explicit Listening(const MachineOptions& options)
            : rig(options, ",listen=on"),
              table(rig.driver.new_table()),
              other(rig.driver.new_table()) {
            rig.driver.attach(kProbe, table, kDomain);
            rig.driver.attach(kSecondProbe, other, kOtherDomain);
            rig.driver.enable_translation();
        }
        Listening(const Listening&) = delete;
        Listening& operator=(const Listening&) = delete;
        // Whatever a test did, Umbra's own comparison of tables and mappings must find no error.
        ~Listening() {
            if (on_umbra() && rig.machine.runs()) {
                expect_verified(rig.machine);
            }
        }

        void submit(const Descriptor& descriptor) { EXPECT_TRUE(rig.driver.submit(descriptor)); }
        [[nodiscard]] Mappings live() { return joined(rig.probe.live_mappings()); }

        Rig rig;
        SecondStage table;
        SecondStage other;
    };

    static void expect_verified(QtestMachine& machine) {
        const Json verified = verification_of(machine);
        EXPECT_EQ(verified.at("errors"), 0);
        EXPECT_TRUE(verified.at("complete").get<bool>());
    }

    // The expectation `what`: asserted on Umbra, recorded on the peer.
    void expect(const std::string& what, const Mappings& actual, const Mappings& expected) {
        if (on_umbra()) {
            EXPECT_EQ(actual, expected) << what;
        } else {
            note(what, actual == expected);
        }
    }
    void expect(const std::string& what, std::uint64_t actual, std::uint64_t expected) {
        if (on_umbra()) {
            EXPECT_EQ(actual, expected) << what;
        } else {
            note(what, actual == expected);
        }
    }

    // VFIO would have refused nothing so far.
    void expect_no_refusal(ProbeDriver& probe) {
        expect("no map over a live mapping", probe.get(UMBRA_PROBE_REFUSED_OVERLAP), 0);
        expect("no unmap that cuts a mapping", probe.get(UMBRA_PROBE_REFUSED_BISECT), 0);
        expect("no map of what is not RAM", probe.get(UMBRA_PROBE_REFUSED_TARGET), 0);
    }

    static void note(const std::string& what, bool holds) {
        RecordProperty("peer_" + std::to_string(++noted_), what + (holds ? ": holds" : ": FAILS"));
        std::cout << "[ PEER     ] " << what << (holds ? ": holds" : ": FAILS") << "\n";
    }

    void SetUp() override {
        noted_ = 0;
        ViommuTest::SetUp();
    }

    static inline int noted_ = 0;
};
UMBRA_ON_EACH_VIOMMU(Shadow);

// The basics. The peer passes these, or the harness is wrong, so they are asserted on both.

TEST_P(Shadow, PagesAreMappedAndUnmappedByPageSelectiveInvalidation) {
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

TEST_P(Shadow, DomainSelectiveInvalidationFindsEveryChange) {
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

TEST_P(Shadow, GlobalInvalidationReachesEveryDomain) {
    Listening on(options());
    on.table.map(kIova, kData);
    on.other.map(kIova, kData + kPageSize);
    on.submit(Descriptor::iotlb_global());
    EXPECT_EQ(on.live(), Mappings{mapping(kIova, kData, kPageSize)});
    EXPECT_EQ(joined(on.rig.second.live_mappings()),
              Mappings{mapping(kIova, kData + kPageSize, kPageSize)});
}

TEST_P(Shadow, LargeLeavesAreMappedWhole) {
    MachineOptions large = options();
    large.memory_mib = 2048;
    Listening on(large);
    const Gpa gigabyte(std::uint64_t{1} << 30);
    on.table.map(Iova(0x8000'0000), gigabyte, Leaf::page_1g);
    on.table.map(kIova, kData, Leaf::page_2m);
    on.submit(Descriptor::iotlb_domain(kDomain));
    const Mappings expected = {mapping(kIova, kData, leaf_size(Leaf::page_2m)),
                               mapping(Iova(0x8000'0000), gigabyte, leaf_size(Leaf::page_1g))};
    EXPECT_EQ(on.live(), expected);
    EXPECT_EQ(on.rig.probe.get(UMBRA_PROBE_LISTEN_MAPS), 2u);
}

TEST_P(Shadow, PermissionsAreTheLeafs) {
    Listening on(options());
    on.table.map(kIova, kData, Leaf::page_4k, driver::kEntryRead);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 0));
    EXPECT_EQ(on.live(), Mappings{mapping(kIova, kData, kPageSize, 1)});
}

TEST_P(Shadow, DevicesOfOneDomainGetTheSameMappings) {
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

TEST_P(Shadow, ListenerThatArrivesLateIsToldOfWhatIsMapped) {
    Listening on(options());
    on.table.map_pages(kIova, kData, 8);
    on.submit(Descriptor::iotlb_domain(kDomain));
    on.rig.probe.listen(false);
    EXPECT_TRUE(on.live().empty());
    on.rig.probe.listen(true);
    EXPECT_EQ(on.live(), Mappings{mapping(kIova, kData, 8 * kPageSize)});
}

// What benchmarks take for the listener's part of a figure.
TEST_P(Shadow, RehearsedNotificationsAreCountedAndNeedNoRules) {
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

TEST_P(Shadow, DeviceMovesBetweenDomains) {
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

TEST_P(Shadow, PassThroughMapsRamAndBack) {
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

TEST_P(Shadow, TranslationOffAndOnAgain) {
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

// What the peer gets wrong.

TEST_P(Shadow, LargeLeafReplacedBySmallOnes) {
    constexpr std::size_t kPages = 512;
    Listening on(options());
    on.table.map(kIova, kData, Leaf::page_2m);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 9));
    ASSERT_EQ(on.live(), Mappings{mapping(kIova, kData, leaf_size(Leaf::page_2m))});

    Mappings expected;
    for (std::size_t i = 0; i < kPages; i++) {
        // Backwards, so that no two neighbours continue each other.
        const Gpa target = kData + (kPages - 1 - i) * kPageSize;
        on.table.map(kIova + i * kPageSize, target);
        expected.push_back(mapping(kIova + i * kPageSize, target, kPageSize));
    }
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 9));
    expect("4 KiB leaves replace the 2 MiB mapping", on.live(), expected);
    expect_no_refusal(on.rig.probe);
}

TEST_P(Shadow, SmallLeavesReplacedByALargeOne) {
    Listening on(options());
    on.table.map_pages(kIova, kData + leaf_size(Leaf::page_2m), 512);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 9));
    on.table.map(kIova, kData, Leaf::page_2m);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 9));
    expect("a 2 MiB leaf replaces the 4 KiB mappings", on.live(),
           Mappings{mapping(kIova, kData, leaf_size(Leaf::page_2m))});
    expect_no_refusal(on.rig.probe);
}

TEST_P(Shadow, PartOfALargeLeafInvalidatedAfterItsRemoval) {
    Listening on(options());
    on.table.map(kIova, kData, Leaf::page_2m);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 9));
    on.table.unmap(kIova, Leaf::page_2m);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova + 0x1000, 0));
    // Hardware drops the whole leaf when any page of it is named.
    expect("the 2 MiB mapping is gone", on.live(), {});
    expect_no_refusal(on.rig.probe);
}

TEST_P(Shadow, PageMovedWithoutAnUnmapBetween) {
    Listening on(options());
    on.table.map_pages(kIova, kData, 4);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 2));
    on.table.map(kIova + kPageSize, kData + 64 * kPageSize);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova + kPageSize, 0));
    const Mappings expected = {
        mapping(kIova, kData, kPageSize),
        mapping(kIova + kPageSize, kData + 64 * kPageSize, kPageSize),
        mapping(kIova + 2 * kPageSize, kData + 2 * kPageSize, 2 * kPageSize)};
    expect("the page is mapped to its new place", on.live(), expected);
    expect_no_refusal(on.rig.probe);
}

TEST_P(Shadow, PermissionChange) {
    Listening on(options());
    on.table.map(kIova, kData);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 0));
    on.table.map(kIova, kData, Leaf::page_4k, driver::kEntryRead);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 0));
    expect("the mapping became read-only", on.live(),
           Mappings{mapping(kIova, kData, kPageSize, 1)});
    expect_no_refusal(on.rig.probe);
}

TEST_P(Shadow, ContextInvalidationOfOneDomainLeavesTheOthersAlone) {
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

TEST_P(Shadow, GlobalContextInvalidationWithoutAChangeTouchesNothing) {
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

TEST_P(Shadow, EntryThatGetsAReservedBitIsUnmapped) {
    Listening on(options());
    on.table.map(kIova, kData);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 0));
    on.table.set_entry(kIova, 1, kData.value() | driver::kEntryReadWrite | std::uint64_t{1} << 51);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 0));
    expect("an entry that translates nothing maps nothing", on.live(), {});
}

TEST_P(Shadow, TablesThatPointToThemselvesDoNotHoldQemu) {
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

    // And this one heals when its tables do.
    for (std::uint64_t i = 0; i < kEntriesPerTable; i++) {
        on.rig.machine.store64(on.table.root() + i * 8, 0);
    }
    on.table.map(kIova, kData);
    on.submit(Descriptor::iotlb_domain(kDomain));
    EXPECT_EQ(on.live(), Mappings{mapping(kIova, kData, kPageSize)});
}

TEST_P(Shadow, ClearedButNotYetInvalidatedEntryIsUnmappedInTheEnd) {
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

TEST_P(Shadow, ListenerThatComesBackWhileAnEntryIsClearedButNotInvalidated) {
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

TEST_P(Shadow, LeafAcrossTheEndOfRamIsMappedAsFarAsItGoes) {
    MachineOptions odd = options();
    odd.memory_mib = 513;
    Listening on(odd);
    const Gpa last(std::uint64_t{512} << 20);  // 1 MiB of RAM from here on
    on.table.map(kIova, last, Leaf::page_2m);
    on.submit(Descriptor::iotlb_domain(kDomain));
    expect("the RAM part of the leaf is mapped", on.live(),
           Mappings{mapping(kIova, last, std::uint64_t{1} << 20)});
    expect_no_refusal(on.rig.probe);
}

TEST_P(Shadow, OnlyWhatChangedIsTouched) {
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

TEST_P(Shadow, SpanningUnmapOfScatteredPagesLeavesNothingBehind) {
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

TEST_P(Shadow, VerifyTellsWhatTheGuestHasYetToInvalidateFromErrors) {
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

TEST_P(Shadow, DevicesOfOneDomainCostOneWalk) {
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

// A model guest that maps, unmaps, moves and resizes at random, and tells the unit with whichever
// invalidation covers it.
TEST_P(Shadow, RandomGuest) {
    constexpr std::size_t kRegions = 8;  // of 2 MiB each
    constexpr int kSteps = 600;
    Listening on(options());
    std::mt19937_64 random(20'240'601);
    // What the guest has mapped: by page, or by region with a large leaf.
    std::array<std::optional<Gpa>, kRegions> large;
    std::array<std::array<std::optional<Gpa>, 512>, kRegions> small;
    const auto region_iova = [](std::size_t region) {
        return kIova + region * leaf_size(Leaf::page_2m);
    };
    const auto random_page = [&] { return kData + random() % 32768 * kPageSize; };

    for (int step = 0; step < kSteps; step++) {
        const std::size_t region = random() % kRegions;
        const std::size_t first = random() % 512;
        const std::size_t count = std::min<std::size_t>(512 - first, 1 + random() % 32);
        const auto action = static_cast<unsigned>(random() % 8);
        if (action == 0) {
            large.at(region) = kData + random() % 64 * leaf_size(Leaf::page_2m);
            on.table.map(region_iova(region), *large.at(region), Leaf::page_2m);
            small.at(region).fill(std::nullopt);
        } else if (action == 1) {
            large.at(region).reset();
            on.table.unmap(region_iova(region), Leaf::page_2m);
            small.at(region).fill(std::nullopt);
        } else {
            large.at(region).reset();
            const Gpa base = random_page();
            for (std::size_t i = first; i < first + count; i++) {
                std::optional<Gpa>& page = small.at(region).at(i);
                const Iova iova = region_iova(region) + i * kPageSize;
                if (action < 5) {
                    page = base + (i - first) * kPageSize;
                    on.table.map(iova, *page);
                } else {
                    page.reset();
                    on.table.unmap(iova);
                }
            }
        }
        const auto how = static_cast<unsigned>(random() % 16);
        if (how == 0) {
            on.submit(Descriptor::iotlb_global());
        } else if (how < 4) {
            on.submit(Descriptor::iotlb_domain(kDomain));
        } else {
            on.submit(Descriptor::iotlb_pages(kDomain, region_iova(region), 9));
        }
        if (step % 20 != 19) {
            continue;
        }
        Mappings expected;
        for (std::size_t r = 0; r < kRegions; r++) {
            if (large.at(r)) {
                expected.push_back(mapping(region_iova(r), *large.at(r), leaf_size(Leaf::page_2m)));
                continue;
            }
            for (std::size_t i = 0; i < 512; i++) {
                if (small.at(r).at(i)) {
                    expected.push_back(
                        mapping(region_iova(r) + i * kPageSize, *small.at(r).at(i), kPageSize));
                }
            }
        }
        const Mappings actual = on.live();
        if (!on_umbra() && actual != joined(expected)) {
            note("mappings follow the tables, up to step " + std::to_string(step), false);
            return;
        }
        ASSERT_EQ(actual, joined(expected)) << "step " << step;
    }
    expect_no_refusal(on.rig.probe);
}

}  // namespace
}  // namespace umbra::qtest
