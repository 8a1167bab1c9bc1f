// SPDX-License-Identifier: GPL-2.0-or-later
//
// DMA by a device through the unit: the place in memory, and the permissions there.
#include <cstring>

#include "tests/qtest/pci_bridge.h"
#include "tests/qtest/viommu_test.h"

namespace umbra::qtest {
namespace {

constexpr std::uint64_t kPattern = 0x1122'3344'5566'7788;

class Translation : public ViommuTest {};
UMBRA_ON_EACH_VIOMMU(Translation);

TEST_P(Translation, IsTheIdentityWhileOff) {
    Rig rig(options());
    EXPECT_EQ(rig.probe.store(Iova(kData.value()), kPattern), DmaResult::ok);
    EXPECT_EQ(rig.machine.load64(kData), kPattern);
    rig.machine.store64(kData + 8, 42);
    EXPECT_EQ(rig.probe.load(Iova(kData.value() + 8)), 42u);
}

// A device chooses its view of memory when the machine is complete.
TEST_P(Translation, DeviceNamedBeforeTheUnit) {
    MachineOptions options{.viommu = Viommu::none};
    options.arguments = {"-device", std::string(type_name(GetParam())) + ",id=viommu"};
    Rig rig(options);
    SecondStage table = rig.driver.new_table();
    table.map(Iova(0x5000), kData);
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    EXPECT_EQ(rig.probe.store(Iova(0x5000), kPattern), DmaResult::ok);
    EXPECT_EQ(rig.machine.load64(kData), kPattern);
    EXPECT_EQ(rig.probe.store(Iova(kData.value()), kPattern), DmaResult::fault);
}

TEST_P(Translation, NeedsBusMastering) {
    Rig rig(options());
    rig.machine.config_write16(kProbe, 4, 0x2);
    EXPECT_EQ(rig.probe.store(Iova(kData.value()), kPattern), DmaResult::fault);
    EXPECT_EQ(rig.machine.load64(kData), 0u);
}

// Leaf sizes at both address widths.
struct LeafCase {
    Viommu viommu;
    unsigned address_width;
    Leaf leaf;
};

void PrintTo(const LeafCase& param, std::ostream* stream) {
    *stream << type_name(param.viommu) << ", " << param.address_width << " bits";
}

class LeafTranslation : public QemuTest, public ::testing::WithParamInterface<LeafCase> {};

std::string leaf_case_name(const ::testing::TestParamInfo<LeafCase>& info) {
    constexpr std::array<const char*, 3> kNames = {"4K", "2M", "1G"};
    return std::string(info.param.viommu == Viommu::umbra ? "umbra" : "intel") + "_" +
           std::to_string(info.param.address_width) + "_" +
           kNames.at(static_cast<unsigned>(info.param.leaf) - 1);
}

std::vector<LeafCase> leaf_cases() {
    std::vector<LeafCase> cases;
    for (const Viommu viommu : {Viommu::umbra, Viommu::intel}) {
        for (const unsigned width : {39u, 48u}) {
            for (const Leaf leaf : {Leaf::page_4k, Leaf::page_2m, Leaf::page_1g}) {
                cases.push_back({viommu, width, leaf});
            }
        }
    }
    return cases;
}

INSTANTIATE_TEST_SUITE_P(On, LeafTranslation, ::testing::ValuesIn(leaf_cases()), leaf_case_name);

TEST_P(LeafTranslation, ReachesBothEndsOfTheLeaf) {
    const LeafCase& param = GetParam();
    const std::uint64_t size = leaf_size(param.leaf);
    // A 1 GiB leaf needs a target of 1 GiB, and the tables live below it.
    MachineOptions options{.viommu = param.viommu, .address_width = param.address_width};
    options.memory_mib = 2048;
    Rig rig(options);
    const Gpa target(std::uint64_t{1} << 30);
    // The last leaf of the address space, so that every index of the walk is at its end.
    const Iova iova((std::uint64_t{1} << param.address_width) - size);

    SecondStage table = rig.driver.new_table();
    table.map(iova, target, param.leaf);
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();

    EXPECT_EQ(rig.probe.store(iova, 1), DmaResult::ok);
    EXPECT_EQ(rig.probe.store(iova + (size - 8), 2), DmaResult::ok);
    EXPECT_EQ(rig.machine.load64(target), 1u);
    EXPECT_EQ(rig.machine.load64(target + (size - 8)), 2u);
    EXPECT_EQ(rig.probe.load(iova + (size - 8)), 2u);
    // The byte below belongs to another leaf.
    EXPECT_EQ(rig.probe.store(iova - 8, 3), DmaResult::fault);
}

TEST_P(Translation, FollowsScatteredPages) {
    constexpr std::size_t kPages = 64;
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    const Iova iova(0x1'2345'6000);
    for (std::size_t i = 0; i < kPages; i++) {
        // 37 is prime to 64: each page lands somewhere else.
        table.map(iova + i * kPageSize, kData + (i * 37 % kPages) * 3 * kPageSize);
    }
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();

    EXPECT_EQ(rig.probe.fill(iova + 0x804, kPages * kPageSize - 0x808, kPattern), DmaResult::ok);
    EXPECT_EQ(rig.probe.check(iova + 0x804, kPages * kPageSize - 0x808, kPattern), DmaResult::ok);
    for (std::size_t i = 1; i + 1 < kPages; i++) {
        const Gpa page = kData + (i * 37 % kPages) * 3 * kPageSize;
        std::uint64_t expected = 0;
        std::memcpy(&expected, rig.machine.ram().subspan(page.value() + 4, 8).data(), 8);
        EXPECT_EQ(expected, kPattern) << "page " << i;
        // The pages beside the mapped ones fault.
        EXPECT_EQ(rig.machine.load64(page + kPageSize), 0u) << "page " << i;
    }
}

TEST_P(Translation, StopsAtTheFirstPageThatIsNotMapped) {
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    table.map_pages(Iova(0x10'0000), kData, 2);
    table.map(Iova(0x10'3000), kData + 3 * kPageSize);
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();

    EXPECT_EQ(rig.probe.fill(Iova(0x10'0000), 4 * kPageSize, kPattern), DmaResult::fault);
    EXPECT_EQ(rig.machine.load64(kData + kPageSize), kPattern);
    EXPECT_EQ(rig.machine.load64(kData + 3 * kPageSize), 0u);
    const std::vector<Fault> faults = rig.driver.take_faults();
    ASSERT_EQ(faults.size(), 1u);
    EXPECT_EQ(faults[0].address, Iova(0x10'2000));
}

struct PermissionCase {
    std::uint64_t leaf;
    std::uint64_t above;
    bool read;
    bool write;
};

TEST_P(Translation, PermissionsOfEveryLevelCount) {
    constexpr std::array<PermissionCase, 7> kCases = {{
        {driver::kEntryReadWrite, driver::kEntryReadWrite, true, true},
        {driver::kEntryRead, driver::kEntryReadWrite, true, false},
        {driver::kEntryWrite, driver::kEntryReadWrite, false, true},
        {driver::kEntryReadWrite, driver::kEntryRead, true, false},
        {driver::kEntryReadWrite, driver::kEntryWrite, false, true},
        {driver::kEntryRead, driver::kEntryWrite, false, false},
        {0, driver::kEntryReadWrite, false, false},
    }};
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();

    for (unsigned level = 2; level <= 4; level++) {
        for (std::size_t i = 0; i < kCases.size(); i++) {
            const PermissionCase& param = kCases.at(i);
            // Entries of one level apart from each other, so that each case has tables of its own.
            const Iova iova((std::uint64_t{i} + 1) << (12 + 9 * (level - 1)) | std::uint64_t{level}
                                                                                   << 12);
            table.map(iova, kData, Leaf::page_4k, param.leaf);
            const Gpa above = table.entry(iova, level);
            rig.machine.store64(
                above, (rig.machine.load64(above) & ~driver::kEntryReadWrite) | param.above);
            rig.machine.store64(kData, 0);
            EXPECT_EQ(rig.probe.load(iova).has_value(), param.read)
                << "level " << level << " case " << i;
            EXPECT_EQ(rig.probe.store(iova, kPattern) == DmaResult::ok, param.write)
                << "level " << level << " case " << i;
            EXPECT_EQ(rig.machine.load64(kData), param.write ? kPattern : 0);
            static_cast<void>(rig.driver.take_faults());
        }
    }
}

TEST_P(Translation, PassThroughIsTheIdentity) {
    Rig rig(options());
    ASSERT_NE(rig.driver.extended_capability() & driver::kEcapPassThrough, 0u);
    rig.driver.contexts().set(
        kProbe, {.levels = 4, .domain = kDomain, .type = driver::TranslationType::pass_through});
    rig.driver.enable_translation();

    EXPECT_EQ(rig.probe.store(Iova(kData.value()), kPattern), DmaResult::ok);
    EXPECT_EQ(rig.machine.load64(kData), kPattern);
    // Only the function whose context says so.
    EXPECT_EQ(rig.second.store(Iova(kData.value()), 1), DmaResult::fault);
    EXPECT_EQ(rig.machine.load64(kData), kPattern);
}

TEST_P(Translation, EachFunctionHasItsOwnTable) {
    Rig rig(options());
    SecondStage first = rig.driver.new_table();
    SecondStage second = rig.driver.new_table();
    const Iova iova(0x4000'0000);
    first.map(iova, kData);
    second.map(iova, kData + kPageSize);
    rig.driver.attach(kProbe, first, kDomain);
    rig.driver.attach(kSecondProbe, second, kOtherDomain);
    rig.driver.enable_translation();

    EXPECT_EQ(rig.probe.store(iova, 1), DmaResult::ok);
    EXPECT_EQ(rig.second.store(iova, 2), DmaResult::ok);
    EXPECT_EQ(rig.machine.load64(kData), 1u);
    EXPECT_EQ(rig.machine.load64(kData + kPageSize), 2u);
}

TEST_P(Translation, FunctionsOfOneDomainShareATable) {
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    const Iova iova(0x4000'0000);
    table.map(iova, kData);
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.attach(kSecondProbe, table, kDomain);
    rig.driver.enable_translation();

    EXPECT_EQ(rig.probe.store(iova, 1), DmaResult::ok);
    EXPECT_EQ(rig.second.load(iova), 1u);
}

TEST_P(Translation, MultifunctionAndBridgedFunctionsUseTheirOwnSourceId) {
    MachineOptions with_bridge = options();
    with_bridge.arguments = {"-device", "umbra-probe,addr=7.0,multifunction=on",
                             "-device", "umbra-probe,addr=7.3",
                             "-device", kRootPort,
                             "-device", "umbra-probe,bus=root-port,addr=0"};
    Rig rig(with_bridge);
    constexpr SourceId kBehind(1, 0);
    PciBridge bridge(rig.machine, kBridge);
    bridge.set_buses(1, 1);
    bridge.open_window();

    ProbeDriver function3(rig.machine, SourceId(0, 7 << 3 | 3), probe_bar(2));
    ProbeDriver behind(rig.machine, kBehind, kBridgeWindow);
    SecondStage table = rig.driver.new_table();
    const Iova iova(0x4000'0000);
    table.map(iova, kData);
    rig.driver.attach(function3.source(), table, kDomain);
    rig.driver.attach(kBehind, table, kDomain);
    rig.driver.enable_translation();

    EXPECT_EQ(function3.store(iova, 1), DmaResult::ok);
    EXPECT_EQ(rig.machine.load64(kData), 1u);
    EXPECT_EQ(behind.store(iova, 2), DmaResult::ok);
    EXPECT_EQ(rig.machine.load64(kData), 2u);

    EXPECT_EQ(behind.store(iova + kPageSize, 3), DmaResult::fault);
    const std::vector<Fault> faults = rig.driver.take_faults();
    ASSERT_EQ(faults.size(), 1u);
    EXPECT_EQ(faults[0].source, kBehind);
}

}  // namespace
}  // namespace umbra::qtest
