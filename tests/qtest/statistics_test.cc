// SPDX-License-Identifier: GPL-2.0-or-later
//
// Umbra's counters, read over QMP, against the work that the test gave the unit.
#include <stdexcept>

#include "tests/qtest/viommu_test.h"

namespace umbra::qtest {
namespace {

constexpr Iova kIova(0x8000'0000);

class Statistics : public QemuTest {
  protected:
    static MachineOptions options() { return {.viommu = Viommu::umbra}; }
    static const Json& domain(const Json& statistics, std::uint16_t id) {
        for (const Json& entry : statistics.at("domains")) {
            if (entry.at("domain").get<std::int64_t>() == id) {
                return entry;
            }
        }
        throw std::out_of_range("no domain " + std::to_string(id));
    }
};

TEST_F(Statistics, InvalidationsAreCountedByKindAndPath) {
    Rig rig(options());
    rig.driver.enable_translation();
    clear_statistics(rig.machine);
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
    const Json statistics = statistics_of(rig.machine);
    const Json& queue = statistics.at("invalidations").at("queue");
    EXPECT_EQ(queue.at("context-global"), 1);
    EXPECT_EQ(queue.at("context-domain"), 2);
    EXPECT_EQ(queue.at("context-device"), 1);
    EXPECT_EQ(queue.at("iotlb-global"), 1);
    EXPECT_EQ(queue.at("iotlb-domain"), 3);
    EXPECT_EQ(queue.at("iotlb-page"), 2);
    EXPECT_EQ(queue.at("interrupt-global"), 1);
    EXPECT_EQ(queue.at("interrupt-index"), 1);
    EXPECT_EQ(statistics.at("queue").at("tail-writes"), 1);
    EXPECT_EQ(statistics.at("queue").at("wait-descriptors"), 1);
    EXPECT_EQ(statistics.at("queue").at("wait-status"), 1);
    EXPECT_EQ(domain(statistics, kDomain).at("domain-invalidations"), 2);
    EXPECT_EQ(domain(statistics, kDomain).at("page-invalidations"), 2);
    EXPECT_EQ(domain(statistics, kDomain).at("pages-invalidated"), 9);
    EXPECT_EQ(domain(statistics, kOtherDomain).at("domain-invalidations"), 1);

    const std::uint32_t iotlb = driver::iotlb_register_offset(rig.driver.extended_capability()) + 8;
    ASSERT_TRUE(rig.driver.command(0, driver::kQueueEnable));
    rig.driver.write64(iotlb, std::uint64_t{1} << 63 | std::uint64_t{1} << 60);
    EXPECT_EQ(statistics_of(rig.machine).at("invalidations").at("registers").at("iotlb-global"), 1);
}

TEST_F(Statistics, FaultsAreCountedByReason) {
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    table.map(kIova, kData, Leaf::page_4k, driver::kEntryRead);
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    clear_statistics(rig.machine);
    EXPECT_EQ(rig.probe.send_message(kIova.value(), 1), DmaResult::fault);
    const Json statistics = statistics_of(rig.machine);
    const Json& faults = statistics.at("faults");
    EXPECT_EQ(faults.at("recorded"), 1);
    EXPECT_EQ(faults.at("overflowed"), 0);
    ASSERT_EQ(faults.at("reasons").size(), 1u);
    EXPECT_EQ(*faults.at("reasons").begin(), faults.at("recorded").get<std::int64_t>() +
                                                 faults.at("collapsed").get<std::int64_t>());
}

TEST_F(Statistics, IotlbHitsAndMisses) {
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    table.map_pages(kIova, kData, 4);
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    clear_statistics(rig.machine);
    for (int round = 0; round < 10; round++) {
        for (std::uint64_t page = 0; page < 4; page++) {
            EXPECT_EQ(rig.probe.send_message((kIova + page * kPageSize).value(), 1), DmaResult::ok);
        }
    }
    const Json statistics = statistics_of(rig.machine);
    EXPECT_EQ(statistics.at("iotlb").at("misses"), 4);
    EXPECT_EQ(statistics.at("iotlb").at("hits"), 36);
    EXPECT_EQ(domain(statistics, kDomain).at("iotlb-hits"), 36);
}

TEST_F(Statistics, QueueErrorsAreCountedByCause) {
    Rig rig(options());
    rig.driver.enable_translation();
    clear_statistics(rig.machine);
    EXPECT_FALSE(rig.driver.submit(Descriptor{.low = 0xf}));
    EXPECT_EQ(statistics_of(rig.machine).at("queue").at("errors").at("bad-type"), 1);
}

}  // namespace
}  // namespace umbra::qtest
