// SPDX-License-Identifier: GPL-2.0-or-later
//
// The host mapping of a leaf: size, target and permissions, and each change of them.
#include "plugin/probe/registers.h"
#include "tests/qtest/shadow_fixture.h"

namespace umbra::qtest {
namespace {

class ShadowLeaf : public ShadowFixture {};
UMBRA_ON_EACH_VIOMMU(ShadowLeaf);

TEST_P(ShadowLeaf, LargeLeavesAreMappedWhole) {
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

TEST_P(ShadowLeaf, PermissionsAreTheLeafs) {
    Listening on(options());
    on.table.map(kIova, kData, Leaf::page_4k, driver::kEntryRead);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 0));
    EXPECT_EQ(on.live(), Mappings{mapping(kIova, kData, kPageSize, 1)});
}

TEST_P(ShadowLeaf, LargeLeafReplacedBySmallOnes) {
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

TEST_P(ShadowLeaf, SmallLeavesReplacedByALargeOne) {
    Listening on(options());
    on.table.map_pages(kIova, kData + leaf_size(Leaf::page_2m), 512);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 9));
    on.table.map(kIova, kData, Leaf::page_2m);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 9));
    expect("a 2 MiB leaf replaces the 4 KiB mappings", on.live(),
           Mappings{mapping(kIova, kData, leaf_size(Leaf::page_2m))});
    expect_no_refusal(on.rig.probe);
}

TEST_P(ShadowLeaf, PartOfALargeLeafInvalidatedAfterItsRemoval) {
    Listening on(options());
    on.table.map(kIova, kData, Leaf::page_2m);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 9));
    on.table.unmap(kIova, Leaf::page_2m);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova + 0x1000, 0));
    // Hardware drops the whole leaf when any page of it is named.
    expect("the 2 MiB mapping is gone", on.live(), {});
    expect_no_refusal(on.rig.probe);
}

TEST_P(ShadowLeaf, PageMovedWithoutAnUnmapBetween) {
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

TEST_P(ShadowLeaf, PermissionChange) {
    Listening on(options());
    on.table.map(kIova, kData);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 0));
    on.table.map(kIova, kData, Leaf::page_4k, driver::kEntryRead);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 0));
    expect("the mapping became read-only", on.live(),
           Mappings{mapping(kIova, kData, kPageSize, 1)});
    expect_no_refusal(on.rig.probe);
}

TEST_P(ShadowLeaf, EntryThatGetsAReservedBitIsUnmapped) {
    Listening on(options());
    on.table.map(kIova, kData);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 0));
    on.table.set_entry(kIova, 1, kData.value() | driver::kEntryReadWrite | std::uint64_t{1} << 51);
    on.submit(Descriptor::iotlb_pages(kDomain, kIova, 0));
    expect("an entry that translates nothing maps nothing", on.live(), {});
}

TEST_P(ShadowLeaf, LeafAcrossTheEndOfRamIsMappedAsFarAsItGoes) {
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

}  // namespace
}  // namespace umbra::qtest
