// SPDX-License-Identifier: GPL-2.0-or-later
//
// Umbra's counters, read over QMP, against what the test had the unit do.
#include "tests/qtest/viommu_test.h"

namespace umbra::qtest {
namespace {

constexpr Iova kIova(0x8000'0000);

class Statistics : public QemuTest {
  protected:
    static MachineOptions options() { return {.viommu = Viommu::umbra}; }
    static Json read(QtestMachine& machine) {
        return machine.property("/machine/peripheral/viommu", "statistics");
    }
    static void clear(QtestMachine& machine) {
        machine.qmp_ok(R"({"execute": "qom-set", "arguments": {)"
                       R"("path": "/machine/peripheral/viommu",)"
                       R"("property": "statistics-clear", "value": true}})");
    }
    static const Json& domain(const Json& statistics, std::uint16_t id) {
        for (const Json& entry : statistics["domains"].list()) {
            if (entry["domain"].integer() == id) {
                return entry;
            }
        }
        throw JsonError("no domain " + std::to_string(id));
    }
};

TEST_F(Statistics, InvalidationsAreCountedByKindAndPath) {
    Rig rig(options());
    rig.driver.enable_translation();
    clear(rig.machine);
    const std::vector<Descriptor> descriptors = {
        Descriptor::context_global(),
        Descriptor::context_domain(kDomain),
        Descriptor::context_domain(kDomain),
        Descriptor::context_device(kDomain, kProbe),
        Descriptor::iotlb_global(),
        Descriptor::iotlb_domain(kDomain),
        Descriptor::iotlb_domain(kDomain),
        Descriptor::iotlb_domain(kOtherDomain),
        Descriptor::iotlb_pages(kDomain, kIova, 3),
        Descriptor::iotlb_pages(kDomain, kIova, 0),
        Descriptor::interrupt_entries_global(),
        Descriptor::interrupt_entries(0, 1),
    };
    ASSERT_TRUE(rig.driver.submit(descriptors));
    const Json statistics = read(rig.machine);
    const Json& queue = statistics["invalidations"]["queue"];
    EXPECT_EQ(queue["context-global"].integer(), 1);
    EXPECT_EQ(queue["context-domain"].integer(), 2);
    EXPECT_EQ(queue["context-device"].integer(), 1);
    EXPECT_EQ(queue["iotlb-global"].integer(), 1);
    EXPECT_EQ(queue["iotlb-domain"].integer(), 3);
    EXPECT_EQ(queue["iotlb-page"].integer(), 2);
    EXPECT_EQ(queue["interrupt-global"].integer(), 1);
    EXPECT_EQ(queue["interrupt-index"].integer(), 1);
    EXPECT_EQ(statistics["queue"]["tail-writes"].integer(), 1);
    EXPECT_EQ(statistics["queue"]["wait-descriptors"].integer(), 1);
    EXPECT_EQ(statistics["queue"]["wait-status"].integer(), 1);
    EXPECT_EQ(domain(statistics, kDomain)["domain-invalidations"].integer(), 2);
    EXPECT_EQ(domain(statistics, kDomain)["page-invalidations"].integer(), 2);
    EXPECT_EQ(domain(statistics, kDomain)["pages-invalidated"].integer(), 9);
    EXPECT_EQ(domain(statistics, kOtherDomain)["domain-invalidations"].integer(), 1);

    const std::uint32_t iotlb = vtd::iotlb_register_offset(rig.driver.extended_capability()) + 8;
    ASSERT_TRUE(rig.driver.command(0, vtd::kQueueEnable));
    rig.driver.write64(iotlb, std::uint64_t{1} << 63 | std::uint64_t{1} << 60);
    EXPECT_EQ(read(rig.machine)["invalidations"]["registers"]["iotlb-global"].integer(), 1);
}

TEST_F(Statistics, FaultsAreCountedByReason) {
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    table.map(kIova, kData, Leaf::page_4k, vtd::kEntryRead);
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    clear(rig.machine);
    EXPECT_EQ(rig.probe.send_message(kIova.value(), 1), DmaResult::fault);
    const Json statistics = read(rig.machine);
    const Json& faults = statistics["faults"];
    EXPECT_EQ(faults["recorded"].integer(), 1);
    EXPECT_EQ(faults["overflowed"].integer(), 0);
    ASSERT_EQ(faults["reasons"].object().size(), 1u);
    EXPECT_EQ(faults["reasons"].object().begin()->second.integer(),
              faults["recorded"].integer() + faults["collapsed"].integer());
}

TEST_F(Statistics, IotlbHitsAndMisses) {
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    table.map_pages(kIova, kData, 4);
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    clear(rig.machine);
    for (int round = 0; round < 10; round++) {
        for (std::uint64_t page = 0; page < 4; page++) {
            EXPECT_EQ(rig.probe.send_message((kIova + page * kPageSize).value(), 1), DmaResult::ok);
        }
    }
    const Json statistics = read(rig.machine);
    EXPECT_EQ(statistics["iotlb"]["misses"].integer(), 4);
    EXPECT_EQ(statistics["iotlb"]["hits"].integer(), 36);
    EXPECT_EQ(domain(statistics, kDomain)["iotlb-hits"].integer(), 36);
}

TEST_F(Statistics, QueueErrorsAreCountedByCause) {
    Rig rig(options());
    rig.driver.enable_translation();
    clear(rig.machine);
    EXPECT_FALSE(rig.driver.submit(Descriptor{.low = 0xf}));
    EXPECT_EQ(read(rig.machine)["queue"]["errors"]["bad-type"].integer(), 1);
}

}  // namespace
}  // namespace umbra::qtest
