// SPDX-License-Identifier: GPL-2.0-or-later
//
// System reset: the state that must be gone after it.
#include "tests/qtest/register_values.h"
#include "tests/qtest/viommu_test.h"

namespace umbra::qtest {
namespace {

constexpr Iova kIova(0x8000'0000);

class Reset : public ViommuTest {};
UMBRA_ON_EACH_VIOMMU(Reset);

TEST_P(Reset, SystemResetRestoresEveryRegister) {
    Rig rig(options());
    const std::vector<std::uint64_t> fresh = register_values(rig.driver);
    InterruptTable interrupts(rig.machine, rig.driver.pages(), 7);
    SecondStage table = rig.driver.new_table();
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    rig.driver.enable_interrupt_remapping(interrupts);
    rig.driver.write32(driver::kFaultEventData, 0x55);
    EXPECT_EQ(rig.probe.store(kIova, 1), DmaResult::fault);
    EXPECT_NE(register_values(rig.driver), fresh);

    rig.machine.system_reset();
    EXPECT_EQ(register_values(rig.driver), fresh);
    EXPECT_TRUE(rig.driver.take_faults().empty());
}

TEST_P(Reset, NothingIsStaleAfterSystemReset) {
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    table.map(kIova, kData);
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    EXPECT_EQ(rig.probe.store(kIova, 1), DmaResult::ok);

    rig.machine.system_reset();
    ProbeDriver probe(rig.machine, kProbe, probe_bar(0));
    // Translation is off: addresses are guest-physical again.
    rig.machine.store64(kData, 77);
    EXPECT_EQ(probe.load(Iova(kData.value())), 77u);

    // A new driver with the same IOVA and domain-id, and another page.
    ModelDriver driver(rig.machine);
    SecondStage other = driver.new_table();
    other.map(kIova, kData + kPageSize);
    driver.attach(kProbe, other, kDomain);
    driver.enable_translation();
    EXPECT_EQ(probe.store(kIova, 5), DmaResult::ok);
    EXPECT_EQ(rig.machine.load64(kData), 77u);
    EXPECT_EQ(rig.machine.load64(kData + kPageSize), 5u);
}

TEST_P(Reset, ListenersLoseTheirMappingsAtSystemReset) {
    Rig rig(options(), ",listen=on");
    SecondStage table = rig.driver.new_table();
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    table.map_pages(kIova, kData, 8);
    ASSERT_TRUE(rig.driver.submit(Descriptor::iotlb_domain(kDomain)));
    const Mappings expected = {mapping(kIova, kData, 8 * kPageSize)};
    ASSERT_EQ(joined(rig.probe.live_mappings()), expected);

    rig.machine.system_reset();
    ProbeDriver probe(rig.machine, kProbe, probe_bar(0));
    for (const LiveMapping& mapping : probe.live_mappings()) {
        EXPECT_EQ(mapping.iova.value(), mapping.target.value()) << "left behind by the old guest";
    }
    ModelDriver driver(rig.machine);
    driver.enable_translation();
    EXPECT_TRUE(probe.live_mappings().empty());
}

}  // namespace
}  // namespace umbra::qtest
