// SPDX-License-Identifier: GPL-2.0-or-later
//
// Long invalidations are carried out in slices, and QEMU does its other work between them. Here a
// slice is as short as possible: a table, or a mapping. The progress that a test sees depends on
// the machine's speed; no assertion does.
#include <algorithm>

#include "plugin/probe/registers.h"
#include "tests/qtest/pci_bridge.h"
#include "tests/qtest/viommu_test.h"
#include "tests/qtest/wait.h"

namespace umbra::qtest {
namespace {

constexpr Iova kIova(0x4000'0000);
constexpr std::size_t kTables = 8;
// Every second page, so that nothing is contiguous.
constexpr std::size_t kPages = kTables * kEntriesPerTable / 2;
constexpr std::uint64_t kInvalidate = std::uint64_t{1} << 63;

MachineOptions short_slices() {
    MachineOptions options{.viommu = Viommu::umbra};
    options.viommu_properties = ",slice-us=1";
    return options;
}

class Slices : public QemuTest {
  protected:
    void SetUp() override {
        QemuTest::SetUp();
        if (IsSkipped()) {
            return;
        }
        rig_ = std::make_unique<Rig>(short_slices(), ",listen=on");
        table_ = std::make_unique<SecondStage>(rig_->driver.new_table());
        rig_->driver.attach(kProbe, *table_, kDomain);
        rig_->driver.enable_translation();
    }

    QtestMachine& machine() { return rig_->machine; }
    ModelDriver& driver() { return rig_->driver; }

    void map_all() {
        for (std::size_t i = 0; i < kPages; i++) {
            table_->map(kIova + 2 * i * kPageSize, kData + i % 1024 * kPageSize);
        }
    }
    // Puts the descriptor and a wait into the queue, and rings; does not wait.
    void start(const Descriptor& descriptor, std::uint32_t status) {
        driver().enqueue(descriptor);
        driver().enqueue(Descriptor::wait_status(driver().status_address(), status));
        driver().ring();
    }
    [[nodiscard]] std::uint32_t status() {
        return static_cast<std::uint32_t>(machine().load64(driver().status_address()));
    }
    [[nodiscard]] std::size_t mapped() { return rig_->probe.live_mappings().size(); }
    // How many times the shadow has kept QEMU's lock.
    [[nodiscard]] std::int64_t holds() {
        return statistics_of(machine())
            .at("shadow")
            .at("lock-hold")
            .at("count")
            .get<std::int64_t>();
    }
    void expect_verified() {
        const Json verified = verification_of(machine());
        EXPECT_TRUE(verified.at("clean").get<bool>());
        EXPECT_TRUE(verified.at("complete").get<bool>());
    }

    std::unique_ptr<Rig> rig_;
    std::unique_ptr<SecondStage> table_;
};

TEST_F(Slices, WaitCompletesAfterTheLastSlice) {
    map_all();
    const std::int64_t before = holds();
    start(Descriptor::iotlb_domain(kDomain), 7);
    // Registers are read meanwhile, as a driver does that looks for faults while it waits.
    ASSERT_TRUE(comes_true([&] {
        EXPECT_EQ(driver().read32(driver::kFaultStatus) & driver::kQueueError, 0u);
        return status() == 7;
    }));
    EXPECT_EQ(mapped(), kPages);
    EXPECT_GE(holds() - before, static_cast<std::int64_t>(kTables / 2));
    expect_verified();
}

// Firmware polls the head, and the status of the queue when it switches it off.
TEST_F(Slices, HeadAndStatusWaitForTheEffect) {
    map_all();
    const std::uint64_t before = driver().read64(driver::kQueueHead);
    driver().enqueue(Descriptor::iotlb_domain(kDomain));
    driver().ring();
    // The first slice is over, and it is a small part of the work.
    EXPECT_EQ(driver().read64(driver::kQueueHead), before);
    ASSERT_TRUE(comes_true([&] {
        return driver().read64(driver::kQueueHead) == driver().read64(driver::kQueueTail);
    }));
    EXPECT_EQ(mapped(), kPages);

    table_->unmap_pages(kIova, kTables * kEntriesPerTable);
    map_all();
    for (std::size_t i = 0; i < kPages; i++) {
        table_->map(kIova + 2 * i * kPageSize, kData + (i + 1) % 1024 * kPageSize);
    }
    driver().enqueue(Descriptor::iotlb_domain(kDomain));
    driver().ring();
    driver().write32(driver::kGlobalCommand,
                     driver().read32(driver::kGlobalStatus) & ~driver::kQueueEnable);
    EXPECT_NE(driver().read32(driver::kGlobalStatus) & driver::kQueueEnable, 0u);
    ASSERT_TRUE(comes_true(
        [&] { return (driver().read32(driver::kGlobalStatus) & driver::kQueueEnable) == 0; }));
    EXPECT_EQ(driver().read64(driver::kQueueHead), 0u);
    EXPECT_EQ(mapped(), kPages);
    expect_verified();
}

TEST_F(Slices, TailWrittenMeanwhile) {
    map_all();
    start(Descriptor::iotlb_domain(kDomain), 1);
    const Iova later = kIova + std::uint64_t{0x4000'0000};
    for (std::uint32_t i = 0; i < 16; i++) {
        table_->map(later + i * kPageSize, kData);
        start(Descriptor::iotlb_pages(kDomain, later + i * kPageSize, 0), 2 + i);
    }
    ASSERT_TRUE(comes_true([&] { return status() == 17; }));
    EXPECT_EQ(driver().read64(driver::kQueueHead), driver().read64(driver::kQueueTail));
    EXPECT_EQ(mapped(), kPages + 16);
    expect_verified();
}

TEST_F(Slices, EverythingInvalidatedMeanwhile) {
    map_all();
    start(Descriptor::iotlb_domain(kDomain), 1);
    start(Descriptor::iotlb_global(), 2);
    table_->unmap_pages(kIova, kEntriesPerTable);
    start(Descriptor::context_global(), 3);
    start(Descriptor::iotlb_global(), 4);
    ASSERT_TRUE(comes_true([&] { return status() == 4; }));
    EXPECT_EQ(mapped(), kPages - kEntriesPerTable / 2);
    expect_verified();
}

TEST_F(Slices, DeviceLeavesTheDomainMeanwhile) {
    map_all();
    start(Descriptor::iotlb_domain(kDomain), 1);
    driver().contexts().clear(kProbe);
    start(Descriptor::context_device(kDomain, kProbe), 2);
    ASSERT_TRUE(comes_true([&] { return status() == 2; }));
    EXPECT_EQ(mapped(), 0u);
}

TEST_F(Slices, ListenerGoesMeanwhile) {
    map_all();
    start(Descriptor::iotlb_domain(kDomain), 1);
    rig_->probe.listen(false);
    ASSERT_TRUE(comes_true([&] { return status() == 1; }));
    rig_->probe.listen(true);
    EXPECT_EQ(mapped(), kPages);
}

TEST_F(Slices, ResetMeanwhile) {
    map_all();
    start(Descriptor::iotlb_domain(kDomain), 1);
    machine().system_reset();
    EXPECT_EQ(driver().read32(driver::kGlobalStatus), 0u);
    ProbeDriver probe(machine(), kProbe, probe_bar(0));
    ModelDriver fresh(machine());
    SecondStage table = fresh.new_table();
    table.map(Iova(0x1000), kData);
    fresh.attach(kProbe, table, kDomain);
    fresh.enable_translation();
    EXPECT_EQ(probe.store(Iova(0x1000), 9), DmaResult::ok);
    EXPECT_TRUE(fresh.submit(Descriptor::iotlb_domain(kDomain)));
}

// Saving a machine stops it first, and writes memory before devices. So the status that the guest
// waits for must be in memory by the time the machine has stopped.
TEST_F(Slices, MachineThatStopsHasNothingLeft) {
    map_all();
    start(Descriptor::iotlb_domain(kDomain), 1);
    machine().qmp_ok(R"({"execute": "stop"})");
    EXPECT_EQ(status(), 1u);
    EXPECT_EQ(mapped(), kPages);
    machine().qmp_ok(R"({"execute": "cont"})");
    table_->unmap_pages(kIova, kTables * kEntriesPerTable);
    EXPECT_TRUE(driver().submit(Descriptor::iotlb_domain(kDomain)));
    EXPECT_EQ(mapped(), 0u);
}

TEST_F(Slices, InvalidationByRegisterCompletesAfterTheLastSlice) {
    ASSERT_TRUE(driver().command(0, driver::kQueueEnable));
    map_all();
    const std::uint32_t command = driver::iotlb_register_offset(driver().extended_capability()) + 8;
    driver().write64(command, kInvalidate | std::uint64_t{2} << 60 | std::uint64_t{kDomain} << 32);
    std::uint64_t after = 0;
    ASSERT_TRUE(comes_true([&] {
        after = driver().read64(command);
        return (after & kInvalidate) == 0;
    }));
    EXPECT_EQ(after >> 57 & 3, 2u) << "actual granularity";
    EXPECT_EQ(mapped(), kPages);
}

TEST_F(Slices, TranslationIsOnWhenEverythingIsMapped) {
    ASSERT_TRUE(driver().command(0, driver::kTranslationEnable));
    map_all();
    ASSERT_TRUE(driver().command(driver::kTranslationEnable));
    EXPECT_EQ(mapped(), kPages);
    expect_verified();
}

class SharedBridge : public QemuTest {};

// Both probes are behind one conventional bridge, so the unit cannot tell them apart. One of them
// is told of the mappings while work for the other is left over.
TEST_F(SharedBridge, ListenerThatComesMeanwhileTakesNothingFromTheOther) {
    MachineOptions options = short_slices();
    options.arguments = {"-device", "pcie-pci-bridge,id=bridge,addr=8",
                         "-device", "umbra-probe,bus=bridge,addr=1,listen=on",
                         "-device", "umbra-probe,bus=bridge,addr=2,listen=on"};
    Rig rig(options);
    PciBridge bridge(rig.machine, kBridge);
    bridge.set_buses(1, 1);
    bridge.open_window();
    ProbeDriver first(rig.machine, SourceId(1, 1 << 3), kBridgeWindow);
    ProbeDriver second(rig.machine, SourceId(1, 2 << 3), kBridgeWindow + 0x2000);
    SecondStage table = rig.driver.new_table();
    rig.driver.attach(SourceId(1, 0), table, kDomain);
    rig.driver.enable_translation();
    for (std::size_t i = 0; i < kPages; i++) {
        table.map(kIova + 2 * i * kPageSize, kData + i % 1024 * kPageSize);
    }
    ASSERT_TRUE(rig.driver.submit(Descriptor::iotlb_domain(kDomain)));
    ASSERT_EQ(first.live_mappings().size(), kPages);
    ASSERT_EQ(second.live_mappings().size(), kPages);

    table.unmap_pages(kIova, 2 * kPages);
    const Iova late = kIova + std::uint64_t{2 * kPages + 8} * kPageSize;
    table.map(late, kData);
    second.clear_counters();
    rig.driver.enqueue(Descriptor::iotlb_domain(kDomain));
    rig.driver.ring();
    second.listen(false);
    second.listen(true);
    ASSERT_TRUE(rig.driver.submit(Descriptor::iotlb_domain(kDomain)));
    const Mappings expected = {mapping(late, kData, kPageSize)};
    EXPECT_EQ(joined(first.live_mappings()), expected);
    EXPECT_EQ(joined(second.live_mappings()), expected);
    EXPECT_EQ(second.get(UMBRA_PROBE_REFUSED_OVERLAP), 0u);
}

}  // namespace
}  // namespace umbra::qtest
