// SPDX-License-Identifier: GPL-2.0-or-later
//
// Devices, bridges and bus numbers that change while the machine runs.
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/qtest/pci_bridge.h"
#include "tests/qtest/viommu_test.h"

namespace umbra::qtest {
namespace {

constexpr Iova kIova(0x8000'0000);

class Hotplug : public ViommuTest {};
UMBRA_ON_EACH_VIOMMU(Hotplug);

TEST_P(Hotplug, ProbesComeAndGo) {
    MachineOptions with_port = options();
    with_port.arguments = {"-global", kHotplugByRegisters, "-device", kRootPort};
    Rig rig(with_port);
    constexpr SourceId kBehind(1, 0);
    PciBridge port(rig.machine, kBridge);
    port.set_buses(1, 1);
    port.open_window();
    SecondStage table = rig.driver.new_table();
    table.map(kIova, kData);
    rig.driver.attach(kBehind, table, kDomain);
    rig.driver.enable_translation();

    for (std::uint64_t round = 1; round <= 3; round++) {
        rig.machine.qmp_ok(
            R"({"execute": "device_add", "arguments": {"driver": "umbra-probe", "id": "late",)"
            R"( "bus": "root-port", "addr": "0", "listen": true}})");
        port.switch_slot_on();
        ProbeDriver late(rig.machine, kBehind, kBridgeWindow);
        EXPECT_EQ(late.store(kIova, round), DmaResult::ok);
        EXPECT_EQ(rig.machine.load64(kData), round);
        EXPECT_EQ(late.live_mappings().size(), 1u);
        rig.machine.qmp_ok(R"({"execute": "device_del", "arguments": {"id": "late"}})");
        port.switch_slot_off();
        ASSERT_EQ(rig.machine.config_read32(kBehind, 0), 0xffff'ffffu);
    }
    EXPECT_TRUE(rig.machine.runs());
}

// The removal of a bridge removes its bus too. The unit reads the bus number from the bridge.
TEST_P(Hotplug, BridgeGoesWithTheProbeBehindIt) {
    if (!on_umbra()) {
        GTEST_SKIP() << "intel-iommu goes on using the bus of the bridge, which is freed: now and "
                        "then it crashes";
    }
    MachineOptions with_bridge = options();
    with_bridge.arguments = {"-global", kHotplugByRegisters,
                             "-device", kRootPort,
                             "-device", "pcie-pci-bridge,id=bridge,bus=root-port",
                             "-device", "umbra-probe,bus=bridge,addr=1,listen=on"};
    Rig rig(with_bridge);
    constexpr SourceId kConventional(1, 0);
    constexpr SourceId kBehind(2, 1 << 3);
    PciBridge port(rig.machine, kBridge);
    port.set_buses(1, 2);
    port.open_window();
    PciBridge conventional(rig.machine, kConventional);
    conventional.set_buses(2, 2);
    conventional.open_window();
    ProbeDriver behind(rig.machine, kBehind, kBridgeWindow);
    SecondStage table = rig.driver.new_table();
    table.map(kIova, kData);
    // A conventional bus behind a bridge has one requester id.
    rig.driver.attach(SourceId(2, 0), table, kDomain);
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    EXPECT_EQ(behind.store(kIova, 1), DmaResult::ok);
    EXPECT_EQ(behind.live_mappings().size(), 1u);

    rig.machine.qmp_ok(R"({"execute": "device_del", "arguments": {"id": "bridge"}})");
    port.switch_slot_off();
    ASSERT_EQ(rig.machine.config_read32(kConventional, 0), 0xffff'ffffu);
    rig.machine.finish_unplugging();

    // Each of these visits all devices.
    table.map(kIova + kPageSize, kData);
    const std::array<Descriptor, 2> all = {Descriptor::context_global(),
                                           Descriptor::iotlb_global()};
    EXPECT_TRUE(rig.driver.submit(all));
    EXPECT_EQ(rig.probe.store(kIova + kPageSize, 2), DmaResult::ok);
    rig.driver.disable_translation();
    EXPECT_TRUE(rig.machine.runs());
}

// A PCI Express switch in a hot-pluggable slot, with a probe behind each of its two downstream
// ports: three buses go at once.
TEST_P(Hotplug, SwitchGoesWithTheProbesBehindIt) {
    if (!on_umbra()) {
        GTEST_SKIP() << "intel-iommu goes on using buses that are freed";
    }
    for (const char* properties : {",listen=on", ",listen=on,container=on"}) {
        SCOPED_TRACE(properties);
        const std::string probe = std::string("umbra-probe,addr=0") + properties;
        MachineOptions with_switch = options();
        with_switch.arguments = {"-global", kHotplugByRegisters,
                                 "-device", kRootPort,
                                 "-device", "x3130-upstream,id=switch,bus=root-port",
                                 "-device", "xio3130-downstream,id=left,bus=switch,chassis=2",
                                 "-device", "xio3130-downstream,id=right,bus=switch,chassis=3",
                                 "-device", probe + ",bus=left",
                                 "-device", probe + ",bus=right"};
        Rig rig(with_switch);
        constexpr SourceId kUpstream(1, 0);
        constexpr SourceId kLeft(2, 0);
        constexpr SourceId kRight(2, 1 << 3);
        PciBridge port(rig.machine, kBridge);
        port.set_buses(1, 4);
        PciBridge(rig.machine, kUpstream).set_buses(2, 4);
        PciBridge(rig.machine, kLeft).set_buses(3, 3);
        PciBridge(rig.machine, kRight).set_buses(4, 4);
        SecondStage table = rig.driver.new_table();
        table.map_pages(kIova, kData, 8);
        rig.driver.attach(SourceId(3, 0), table, kDomain);
        rig.driver.attach(SourceId(4, 0), table, kDomain);
        rig.driver.attach(kProbe, table, kDomain);
        rig.driver.enable_translation();

        rig.machine.qmp_ok(R"({"execute": "device_del", "arguments": {"id": "switch"}})");
        port.switch_slot_off();
        ASSERT_EQ(rig.machine.config_read32(kUpstream, 0), 0xffff'ffffu);
        rig.machine.finish_unplugging();

        table.map(kIova + 8 * kPageSize, kData);
        const std::array<Descriptor, 2> all = {Descriptor::context_global(),
                                               Descriptor::iotlb_global()};
        EXPECT_TRUE(rig.driver.submit(all));
        EXPECT_EQ(rig.probe.store(kIova + 8 * kPageSize, 2), DmaResult::ok);
        rig.driver.disable_translation();
        EXPECT_TRUE(rig.machine.runs());
    }
}

// The guest assigns bus numbers. With a new number a device has another context entry, and no
// invalidation announces the change.
TEST_P(Hotplug, RenumberedBusHasTheContextsOfItsNewNumber) {
    if (!on_umbra()) {
        GTEST_SKIP() << "intel-iommu keeps the view that it chose at the last invalidation";
    }
    for (const char* properties : {"", ",listen=on", ",listen=on,container=on"}) {
        SCOPED_TRACE(properties);
        MachineOptions with_port = options();
        with_port.arguments = {"-device", kRootPort, "-device",
                               std::string("umbra-probe,bus=root-port,addr=0") + properties};
        Rig rig(with_port);
        PciBridge port(rig.machine, kBridge);
        port.open_window();
        // Without a number the probe is on bus 0.
        rig.driver.contexts().set(
            SourceId(0, 0),
            {.levels = 4, .domain = kDomain, .type = driver::TranslationType::pass_through});
        SecondStage table = rig.driver.new_table();
        SecondStage other = rig.driver.new_table();
        table.map(kIova, kData);
        other.map(kIova, kData + kPageSize);
        rig.driver.attach(SourceId(2, 0), table, kDomain);
        rig.driver.attach(SourceId(3, 0), other, kOtherDomain);
        rig.driver.enable_translation();
        const auto expect_mapped = [&](ProbeDriver& probe, const Mappings& wanted) {
            if (*properties != '\0') {
                EXPECT_EQ(joined(probe.live_mappings()), wanted);
            }
        };

        port.set_buses(1, 1);
        ProbeDriver blocked(rig.machine, SourceId(1, 0), kBridgeWindow);
        EXPECT_EQ(blocked.store(Iova(kData.value()), 1), DmaResult::fault);
        EXPECT_EQ(rig.machine.load64(kData), 0u);
        expect_mapped(blocked, {});
        const std::vector<Fault> faults = rig.driver.take_faults();
        ASSERT_EQ(faults.size(), 1u);
        EXPECT_EQ(faults[0].source, SourceId(1, 0));

        port.set_buses(2, 2);
        ProbeDriver second(rig.machine, SourceId(2, 0), kBridgeWindow);
        expect_mapped(second, {mapping(kIova, kData, kPageSize)});
        EXPECT_EQ(second.store(kIova, 2), DmaResult::ok);
        EXPECT_EQ(rig.machine.load64(kData), 2u);

        port.set_buses(3, 3);
        ProbeDriver third(rig.machine, SourceId(3, 0), kBridgeWindow);
        expect_mapped(third, {mapping(kIova, kData + kPageSize, kPageSize)});
        EXPECT_EQ(third.store(kIova, 3), DmaResult::ok);
        EXPECT_EQ(rig.machine.load64(kData + kPageSize), 3u);

        // Without a number again. The window still leads to the probe.
        port.set_buses(0, 0);
        EXPECT_EQ(third.store(Iova(kData.value()), 4), DmaResult::ok);
        EXPECT_EQ(rig.machine.load64(kData), 4u);
        EXPECT_TRUE(is_clean(rig.machine));
    }
}

}  // namespace
}  // namespace umbra::qtest
