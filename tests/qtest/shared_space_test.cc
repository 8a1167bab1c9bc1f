// SPDX-License-Identifier: GPL-2.0-or-later
//
// Devices behind a conventional bridge have one requester id, so the unit has one view of memory
// for all of them: a VFIO device, whose container it fills itself, and others that listen to its
// notifications. Probes stand for all of them.
#include "plugin/probe/registers.h"
#include "tests/qtest/pci_bridge.h"
#include "tests/qtest/viommu_test.h"

namespace umbra::qtest {
namespace {

constexpr Iova kIova(0x4000'0000);
constexpr SourceId kShared(1, 0);

constexpr const char* kContainer = ",listen=on,container=on";
constexpr const char* kListener = ",listen=on";
constexpr const char* kUnmapsOnly = ",listen=on,unmaps-only=on,vfio-rules=off";

class SharedSpace : public QemuTest {
  protected:
    // Two probes behind the bridge, with these properties, in kDomain; translation is on.
    struct Pair {
        Pair(const std::string& first_properties, const std::string& second_properties)
            : machine(options(first_properties, second_properties)),
              driver(machine),
              first(machine, SourceId(1, 1 << 3), kBridgeWindow),
              second(machine, SourceId(1, 2 << 3), kBridgeWindow + 0x2000),
              table(driver.new_table()) {
            driver.attach(kShared, table, kDomain);
            driver.enable_translation();
        }

        void submit(const Descriptor& descriptor) { EXPECT_TRUE(driver.submit(descriptor)); }
        void expect_both(const Mappings& expected) {
            EXPECT_EQ(joined(first.live_mappings()), expected);
            EXPECT_EQ(joined(second.live_mappings()), expected);
            expect_nothing_refused(first);
            expect_nothing_refused(second);
            EXPECT_TRUE(is_clean(machine));
        }

        struct BridgedMachine : QtestMachine {
            explicit BridgedMachine(const MachineOptions& options) : QtestMachine(options) {
                PciBridge bridge(*this, kBridge);
                bridge.set_buses(1, 1);
                bridge.open_window();
            }
        };
        BridgedMachine machine;
        ModelDriver driver;
        ProbeDriver first;
        ProbeDriver second;
        SecondStage table;
    };

    static MachineOptions options(const std::string& first, const std::string& second) {
        MachineOptions options{.viommu = Viommu::umbra};
        options.arguments = {"-device", "pcie-pci-bridge,id=bridge,addr=8",
                             "-device", "umbra-probe,bus=bridge,addr=1" + first,
                             "-device", "umbra-probe,bus=bridge,addr=2" + second};
        return options;
    }
};

// A function with a space of its own.
TEST_F(SharedSpace, ContainerAlone) {
    Rig rig(MachineOptions{.viommu = Viommu::umbra}, kContainer);
    SecondStage table = rig.driver.new_table();
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    table.map_pages(kIova, kData, 300);
    EXPECT_TRUE(rig.driver.submit(Descriptor::iotlb_domain(kDomain)));
    EXPECT_EQ(joined(rig.probe.live_mappings()), Mappings{mapping(kIova, kData, 300 * kPageSize)});
    EXPECT_TRUE(rig.second.live_mappings().empty());
    rig.driver.contexts().set(
        kProbe, {.levels = 4, .domain = kDomain, .type = driver::TranslationType::pass_through});
    EXPECT_TRUE(rig.driver.submit(Descriptor::context_device(kDomain, kProbe)));
    EXPECT_GT(rig.probe.live_mappings().size(), 0u);
    EXPECT_EQ(rig.probe.store(Iova(kData.value()), 1), DmaResult::ok);
    rig.driver.attach(kProbe, table, kDomain);
    EXPECT_TRUE(rig.driver.submit(Descriptor::context_device(kDomain, kProbe)));
    EXPECT_EQ(joined(rig.probe.live_mappings()), Mappings{mapping(kIova, kData, 300 * kPageSize)});
    EXPECT_EQ(rig.probe.get(UMBRA_PROBE_REFUSED_OVERLAP), 0u);
    EXPECT_EQ(rig.probe.get(UMBRA_PROBE_REFUSED_BISECT), 0u);
}

TEST_F(SharedSpace, TwoContainersOrContainerAndListener) {
    for (const char* first : {kContainer, kListener}) {
        for (const char* second : {kContainer, kListener}) {
            SCOPED_TRACE(std::string(first) + " and " + second);
            Pair on(first, second);
            const Mappings all = {mapping(kIova, kData, 64 * kPageSize)};
            on.table.map_pages(kIova, kData, 64);
            on.submit(Descriptor::iotlb_pages(kDomain, kIova, 6));
            on.expect_both(all);

            on.table.unmap_pages(kIova, 16);
            on.submit(Descriptor::iotlb_domain(kDomain));
            on.expect_both(
                {mapping(kIova + 16 * kPageSize, kData + 16 * kPageSize, 48 * kPageSize)});
            on.table.map_pages(kIova, kData, 16);
            on.submit(Descriptor::iotlb_domain(kDomain));

            // There and back.
            on.driver.contexts().set(
                kShared,
                {.levels = 4, .domain = kDomain, .type = driver::TranslationType::pass_through});
            on.submit(Descriptor::context_device(kDomain, kShared));
            EXPECT_EQ(on.first.live_mappings(), on.second.live_mappings());
            EXPECT_EQ(on.second.store(Iova(kData.value()), 1), DmaResult::ok);
            on.driver.attach(kShared, on.table, kDomain);
            on.submit(Descriptor::context_device(kDomain, kShared));
            on.expect_both(all);
            on.driver.disable_translation();
            EXPECT_EQ(on.first.live_mappings(), on.second.live_mappings());
            on.driver.enable_translation();
            on.expect_both(all);

            // Blocked, then in another domain.
            on.driver.contexts().clear(kShared);
            on.submit(Descriptor::context_device(kDomain, kShared));
            on.expect_both({});
            on.driver.attach(kShared, on.table, kOtherDomain);
            on.submit(Descriptor::context_device(kDomain, kShared));
            on.expect_both(all);
            on.table.unmap_pages(kIova, 64);
            on.submit(Descriptor::iotlb_global());
            on.expect_both({});
        }
    }
}

TEST_F(SharedSpace, ListenerComesAndGoesBesideAContainer) {
    Pair on(kContainer, kListener);
    const Mappings all = {mapping(kIova, kData, 64 * kPageSize)};
    on.second.listen(false);
    on.table.map_pages(kIova, kData, 64);
    on.submit(Descriptor::iotlb_domain(kDomain));
    EXPECT_EQ(joined(on.first.live_mappings()), all);
    on.second.listen(true);
    on.expect_both(all);
    on.second.listen(false);
    on.table.unmap_pages(kIova, 64);
    on.submit(Descriptor::iotlb_domain(kDomain));
    on.second.listen(true);
    on.expect_both({});
}

TEST_F(SharedSpace, ContainerComesToAListener) {
    Pair on(kListener, kListener);
    const Mappings all = {mapping(kIova, kData, 64 * kPageSize)};
    on.table.map_pages(kIova, kData, 64);
    on.submit(Descriptor::iotlb_domain(kDomain));
    on.expect_both(all);
    on.machine.qmp_ok(
        R"({"execute": "device_add", "arguments": {"driver": "umbra-probe", "id": "late",)"
        R"( "bus": "bridge", "addr": "3", "listen": true, "container": true}})");
    ProbeDriver late(on.machine, SourceId(1, 3 << 3), kBridgeWindow + 0x4000);
    EXPECT_EQ(joined(late.live_mappings()), all);
    // The unit tells it through notifiers first, and then fills its container.
    EXPECT_EQ(late.get(UMBRA_PROBE_REFUSED_OVERLAP), 0u);
    EXPECT_EQ(late.get(UMBRA_PROBE_REFUSED_BISECT), 0u);
    on.expect_both(all);
    on.table.unmap_pages(kIova, 63);
    on.submit(Descriptor::iotlb_domain(kDomain));
    const Mappings last = {mapping(kIova + 63 * kPageSize, kData + 63 * kPageSize, kPageSize)};
    on.expect_both(last);
    EXPECT_EQ(joined(late.live_mappings()), last);
}

TEST_F(SharedSpace, AllGoWithTheBridge) {
    for (const char* second : {kListener, kUnmapsOnly, kContainer}) {
        MachineOptions with_port{.viommu = Viommu::umbra};
        with_port.arguments = {"-global", kHotplugByRegisters,
                               "-device", kRootPort,
                               "-device", "pcie-pci-bridge,id=bridge,bus=root-port",
                               "-device", std::string("umbra-probe,bus=bridge,addr=1") + kContainer,
                               "-device", std::string("umbra-probe,bus=bridge,addr=2") + second};
        Rig rig(with_port, kListener);
        PciBridge port(rig.machine, kBridge);
        port.set_buses(1, 2);
        PciBridge(rig.machine, SourceId(1, 0)).set_buses(2, 2);
        SecondStage table = rig.driver.new_table();
        table.map_pages(kIova, kData, 8);
        rig.driver.attach(SourceId(2, 0), table, kDomain);
        rig.driver.attach(kProbe, table, kDomain);
        rig.driver.enable_translation();
        rig.machine.qmp_ok(R"({"execute": "device_del", "arguments": {"id": "bridge"}})");
        port.switch_slot_off();
        ASSERT_EQ(rig.machine.config_read32(SourceId(1, 0), 0), 0xffff'ffffu);
        rig.machine.finish_unplugging();
        table.unmap_pages(kIova, 4);
        EXPECT_TRUE(rig.driver.submit(Descriptor::iotlb_global()));
        EXPECT_EQ(joined(rig.probe.live_mappings()),
                  Mappings{mapping(kIova + 4 * kPageSize, kData + 4 * kPageSize, 4 * kPageSize)});
        rig.driver.disable_translation();
        EXPECT_TRUE(rig.machine.runs());
    }
}

// A listener that hears of unmaps only keeps translations that the shadow does not know.
TEST_F(SharedSpace, UnmapsOnlyListenerHearsEveryInvalidation) {
    for (const char* first : {kContainer, kListener}) {
        SCOPED_TRACE(first);
        Pair on(first, kUnmapsOnly);
        on.second.clear_counters();
        on.first.clear_counters();
        on.submit(Descriptor::iotlb_pages(kDomain, kIova, 3));
        EXPECT_EQ(on.second.get(UMBRA_PROBE_LISTEN_UNMAPS), 1u);
        EXPECT_EQ(on.second.get(UMBRA_PROBE_LISTEN_UNMAPPED_BYTES), 8 * kPageSize);
        on.submit(Descriptor::iotlb_pages(kOtherDomain, kIova, 3));
        EXPECT_EQ(on.second.get(UMBRA_PROBE_LISTEN_UNMAPS), 1u);
        on.submit(Descriptor::iotlb_global());
        EXPECT_GT(on.second.get(UMBRA_PROBE_LISTEN_UNMAPPED_BYTES), std::uint64_t{1} << 40);
        // The other listener is told of mappings that go, and of nothing else.
        EXPECT_EQ(on.first.get(UMBRA_PROBE_LISTEN_UNMAPS), 0u);

        on.table.map(kIova, kData);
        on.submit(Descriptor::iotlb_pages(kDomain, kIova, 0));
        EXPECT_EQ(on.first.live_mappings(), Mappings{mapping(kIova, kData, kPageSize)});
        EXPECT_EQ(on.second.get(UMBRA_PROBE_LISTEN_MAPS), 0u);
        on.second.clear_counters();
        // The context that is cached counts, and not the one that the guest has written since.
        on.driver.contexts().clear(kShared);
        on.submit(Descriptor::iotlb_pages(kDomain, kIova, 3));
        EXPECT_EQ(on.second.get(UMBRA_PROBE_LISTEN_UNMAPPED_BYTES), 8 * kPageSize);
        on.second.clear_counters();
        on.submit(Descriptor::context_device(kDomain, kShared));
        EXPECT_GT(on.second.get(UMBRA_PROBE_LISTEN_UNMAPPED_BYTES), std::uint64_t{1} << 40);
    }
}

}  // namespace
}  // namespace umbra::qtest
