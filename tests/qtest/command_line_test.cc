// SPDX-License-Identifier: GPL-2.0-or-later
//
// QEMU's message and exit status for command lines that cannot work.
#include "tests/qtest/environment.h"
#include "tests/qtest/pci_bridge.h"
#include "tests/qtest/viommu_test.h"

namespace umbra::qtest {
namespace {

class CommandLine : public QemuTest {
  protected:
    static MachineOptions umbra_with(const std::string& properties) {
        MachineOptions options{.viommu = Viommu::umbra};
        options.viommu_properties = properties;
        return options;
    }

    // Exit status 1, as QEMU's own refusals have, no signal; and a sentence with these words.
    static void expect_refused(const Refusal& refusal, const std::vector<std::string>& words) {
        ASSERT_TRUE(refusal.status.has_value()) << "still running; it printed:\n" << refusal.output;
        EXPECT_EQ(*refusal.status, 1) << refusal.output;
        for (const std::string& word : words) {
            EXPECT_NE(refusal.output.find(word), std::string::npos) << "no \"" << word << "\" in:\n"
                                                                    << refusal.output;
        }
    }
};

TEST_F(CommandLine, SecondUmbra) {
    MachineOptions options = umbra_with("");
    options.arguments = {"-device", "umbra-viommu"};
    expect_refused(run_refused(options), {"umbra-viommu"});
}

TEST_F(CommandLine, AnotherViommuBeside) {
    MachineOptions options = umbra_with("");
    options.arguments = {"-device", "intel-iommu"};
    expect_refused(run_refused(options), {"iommu"});

    MachineOptions reversed{.viommu = Viommu::intel};
    reversed.arguments = {"-device", "umbra-viommu"};
    expect_refused(run_refused(reversed), {"umbra-viommu"});
}

TEST_F(CommandLine, OtherMachines) {
    for (const char* machine : {"pc", "microvm"}) {
        MachineOptions options = umbra_with("");
        options.machine = machine;
        expect_refused(run_refused(options), {"umbra-viommu"});
    }
}

TEST_F(CommandLine, AddressWidthThatIsNotOffered) {
    for (const unsigned width : {0u, 32u, 40u, 57u, 64u}) {
        MachineOptions options = umbra_with("");
        options.address_width = width;
        expect_refused(run_refused(options), {"aw-bits"});
    }
}

// Bits 21:16 of CAP: the width, minus one.
unsigned offered_width(QtestMachine& machine) {
    ModelDriver driver(machine);
    return static_cast<unsigned>(driver.read64(driver::kCapability) >> 16 & 0x3f) + 1;
}

TEST_F(CommandLine, AddressWidthThatFitsTheHosts) {
    struct Case {
        const char* choice;
        const char* host;
        unsigned width;
    };
    for (const Case& each : {Case{"auto", "64", 48}, Case{"auto", "48", 48}, Case{"auto", "47", 39},
                             Case{"auto", "39", 39}, Case{"39", "39", 39}, Case{"48", "48", 48}}) {
        SCOPED_TRACE(std::string(each.choice) + ", host " + each.host);
        MachineOptions options = umbra_with(std::string(",aw-bits=") + each.choice);
        options.arguments = {
            "-device", std::string("umbra-probe,listen=on,container=on,host-aw-bits=") + each.host};
        QtestMachine machine(options);
        EXPECT_EQ(offered_width(machine), each.width);
        EXPECT_EQ(machine.property(kViommuPath, "aw-bits"), each.width) << "settled";
    }
    QtestMachine alone(umbra_with(",aw-bits=auto"));
    EXPECT_EQ(offered_width(alone), 48U);
}

TEST_F(CommandLine, AddressWidthAboveTheHosts) {
    MachineOptions options = umbra_with("");
    options.arguments = {"-device", "umbra-probe,listen=on,container=on,host-aw-bits=42"};
    expect_refused(run_refused(options), {"42 bits", "aw-bits=48", "aw-bits=39"});
    options.viommu_properties = ",aw-bits=auto";
    options.arguments = {"-device", "umbra-probe,listen=on,container=on,host-aw-bits=36"};
    expect_refused(run_refused(options), {"36 bits", "aw-bits=48", "39"});
}

// The guest knows the unit as it is.
TEST_F(CommandLine, NarrowerHostPluggedLater) {
    MachineOptions options = umbra_with(",aw-bits=auto");
    options.arguments = {"-device", kRootPort};
    QtestMachine machine(options);
    const auto plug = [&](const char* width) {
        return machine.qmp(
            R"({"execute": "device_add", "arguments": {"driver": "umbra-probe",)"
            R"( "id": "late", "bus": "root-port", "listen": true, "container": true,)"
            R"( "host-aw-bits": )" +
            std::string(width) + "}}");
    };
    const std::string refused = plug("39");
    for (const char* words : {"39 bits", "aw-bits=48", "aw-bits=39"}) {
        EXPECT_NE(refused.find(words), std::string::npos) << refused;
    }
    EXPECT_EQ(offered_width(machine), 48U);
    EXPECT_EQ(plug("48").find("error"), std::string::npos);
}

TEST_F(CommandLine, AddressWidthAsJson) {
    for (const char* width : {"39", "\"auto\""}) {
        QtestMachine machine({.viommu = Viommu::none,
                              .arguments = {"-device", R"({"driver": "umbra-viommu", "aw-bits": )" +
                                                           std::string(width) + "}"}});
        EXPECT_TRUE(machine.runs()) << width;
    }
    expect_refused(run_refused({"-M", "q35", "-plugin", "file=" + Environment::get().plugin,
                                "-device", R"({"driver": "umbra-viommu", "aw-bits": 40})"}),
                   {"aw-bits=40", "39, 48 or auto"});
}

TEST_F(CommandLine, AddressWidthByGlobal) {
    MachineOptions options{.viommu = Viommu::none};
    options.plugin_options = ",device=on";
    options.arguments = {"-global", "umbra-viommu.aw-bits=39"};
    QtestMachine machine(options);
    EXPECT_EQ(machine
                  .qmp_ok(R"({"execute": "qom-get", "arguments": )"
                          R"({"path": "/machine/peripheral/umbra", "property": "aw-bits"}})")
                  .dump(),
              "39");
}

TEST_F(CommandLine, ExtendedInterruptModeWithoutRemapping) {
    MachineOptions options = umbra_with(",eim=on");
    options.interrupt_remapping = false;
    expect_refused(run_refused(options), {"eim", "intremap"});
}

// The accelerator of these machines takes no kernel-irqchip; the contradiction is told
// nevertheless.
TEST_F(CommandLine, RemappingWithTheWholeInterruptControllerInKvm) {
    MachineOptions options = umbra_with("");
    options.machine = "q35,kernel-irqchip=on";
    expect_refused(run_refused(options), {"intremap=on", "kernel-irqchip=on", "split"});
}

TEST_F(CommandLine, KernelIrqchipThatDoesNotContradict) {
    MachineOptions options = umbra_with("");
    for (const char* choice : {"split", "off"}) {
        options.machine = std::string("q35,kernel-irqchip=") + choice;
        QtestMachine machine(options);
        EXPECT_NO_THROW(machine.qmp_ok(R"({"execute": "query-status"})")) << choice;
    }
    options.machine = "q35,kernel-irqchip=on";
    options.interrupt_remapping = false;
    QtestMachine machine(options);
    EXPECT_NO_THROW(machine.qmp_ok(R"({"execute": "query-status"})"));
}

// The DMA of these devices does not come through QEMU, so they have to know the guest's mappings.
TEST_F(CommandLine, MapListenersWithoutCachingMode) {
    const std::vector<std::vector<std::string>> devices = {
        {"-device", "vfio-pci,host=0000:ff:1f.7,id=passed"},
        {"-device", "umbra-probe,listen=on,id=passed"},
        {"-device", R"({"driver": "umbra-probe", "listen": true, "id": "passed"})"},
        {"-global", "umbra-probe.listen=on", "-device", "umbra-probe,id=passed"},
    };
    for (const std::vector<std::string>& device : devices) {
        MachineOptions options = umbra_with(",caching-mode=off");
        options.arguments = device;
        expect_refused(run_refused(options), {"'passed'", "caching-mode=off", "caching-mode=on"});
    }
}

TEST_F(CommandLine, MapListenersPluggedWithoutCachingMode) {
    MachineOptions options = umbra_with(",caching-mode=off");
    options.arguments = {"-device", kRootPort, "-device", "umbra-probe,addr=5"};
    QtestMachine machine(options);
    const std::string refused = machine.qmp(
        R"({"execute": "device_add", "arguments": {"driver": "umbra-probe", "id": "late",)"
        R"( "bus": "root-port", "listen": true}})");
    EXPECT_NE(refused.find("caching-mode=on"), std::string::npos) << refused;
    machine.qmp_ok(
        R"({"execute": "device_add", "arguments": {"driver": "umbra-probe", "id": "late",)"
        R"( "bus": "root-port", "listen": false}})");
}

TEST_F(CommandLine, MapListenerByGlobalPluggedWithoutCachingMode) {
    MachineOptions options = umbra_with(",caching-mode=off");
    options.arguments = {"-device", kRootPort, "-global", "umbra-probe.listen=on"};
    QtestMachine machine(options);
    const std::string refused = machine.qmp(
        R"({"execute": "device_add", "arguments": {"driver": "umbra-probe", "id": "late",)"
        R"( "bus": "root-port"}})");
    EXPECT_NE(refused.find("caching-mode=on"), std::string::npos) << refused;
}

// If the guest switched such a device's TLB on, QEMU's vhost code would end the process.
TEST_F(CommandLine, DeviceTlbThatTheUnitDoesNotOffer) {
    const std::string on = "iommu_platform=on,ats=on,id=cached";
    const std::vector<std::vector<std::string>> devices = {
        {"-device", "virtio-net-pci," + on},
        {"-device", "virtio-net," + on},
        {"-device", "virtio-rng-pci-non-transitional," + on},
        {"-device",
         R"({"driver": "virtio-net-pci", "iommu_platform": true, "ats": true, "id": "cached"})"},
        {"-global", "virtio-net-pci.ats=on", "-device",
         "virtio-net-pci,iommu_platform=on,id=cached"},
    };
    for (const std::vector<std::string>& device : devices) {
        MachineOptions options = umbra_with("");
        options.arguments = device;
        expect_refused(run_refused(options), {"'cached'", "ats=on", "device-iotlb=on", "ats=off"});
    }
}

TEST_F(CommandLine, DeviceTlbOfADeviceThatIsNotBehindTheUnit) {
    MachineOptions options = umbra_with("");
    options.arguments = {"-device", "virtio-rng-pci,ats=on", "-device",
                         "virtio-rng-pci,ats=off,iommu_platform=on,disable-legacy=on"};
    QtestMachine machine(options);
    EXPECT_NO_THROW(machine.qmp_ok(R"({"execute": "query-status"})"));
}

TEST_F(CommandLine, DeviceTlbThatTheUnitOffers) {
    MachineOptions options = umbra_with(",device-iotlb=on");
    options.arguments = {"-device", "virtio-rng-pci,ats=on,iommu_platform=on,disable-legacy=on"};
    QtestMachine machine(options);
    EXPECT_NO_THROW(machine.qmp_ok(R"({"execute": "query-status"})"));
}

// The properties of a device that is plugged can come from -global, and its type by another name.
TEST_F(CommandLine, DeviceTlbPluggedThatTheUnitDoesNotOffer) {
    MachineOptions options = umbra_with("");
    options.arguments = {"-device", kRootPort, "-global", "virtio-rng-pci.ats=on"};
    QtestMachine machine(options);
    for (const char* driver : {"virtio-rng-pci", "virtio-rng"}) {
        const std::string plug =
            std::string(R"({"execute": "device_add", "arguments": {"driver": ")") + driver +
            R"(", "id": "late", "bus": "root-port", "iommu_platform": true)";
        const std::string refused = machine.qmp(plug + "}}");
        EXPECT_NE(refused.find("device-iotlb=on"), std::string::npos) << driver << ": " << refused;
    }
    machine.qmp_ok(
        R"({"execute": "device_add", "arguments": {"driver": "virtio-rng-pci", "id": "late",)"
        R"( "bus": "root-port", "iommu_platform": true, "ats": false}})");
}

TEST_F(CommandLine, InterruptRemappingAlone) {
    Rig rig(umbra_with(",dma-translation=off"), "");
    EXPECT_EQ(rig.driver.read64(driver::kCapability) >> 8 & 0x1f, 0u) << "no address width";
    EXPECT_FALSE(rig.driver.command(driver::kTranslationEnable));
    EXPECT_EQ(rig.driver.read32(driver::kGlobalStatus) & driver::kTranslationEnable, 0u);
    EXPECT_EQ(rig.probe.store(Iova(kData.value()), 7), DmaResult::ok) << "is not translated";

    MachineOptions without = umbra_with(",dma-translation=off");
    without.interrupt_remapping = false;
    expect_refused(run_refused(without), {"dma-translation=off", "intremap"});
}

TEST_F(CommandLine, UnknownProperty) {
    expect_refused(run_refused(umbra_with(",nonsense=1")), {"nonsense"});
}

TEST_F(CommandLine, UnknownPluginOption) {
    std::vector<std::string> arguments = {"-M", "q35", "-plugin",
                                          "file=" + Environment::get().plugin + ",nonsense=on"};
    expect_refused(run_refused(arguments), {"nonsense", "help=on"});
}

// ---- The unit made by the plugin ----

// A machine whose -plugin option has `plugin_options`, and `devices` before and after it.
std::vector<std::string> made_by_plugin(const std::string& plugin_options,
                                        const std::vector<std::string>& devices) {
    std::vector<std::string> arguments = {"-M", "q35"};
    for (const std::string& device : devices) {
        arguments.insert(arguments.end(), {"-device", device});
    }
    arguments.insert(arguments.end(),
                     {"-plugin", "file=" + Environment::get().plugin + plugin_options});
    return arguments;
}

TEST_F(CommandLine, DeviceThatThePluginMakesIsBeforeAllOthers) {
    MachineOptions options{.viommu = Viommu::none};
    options.plugin_options = ",device=on,aw-bits=39,pt=off";
    // A listener needs the unit's view from its start, as vfio-pci does.
    options.arguments = {"-device", "umbra-probe,id=probe,listen=on"};
    QtestMachine machine(options);
    const auto get = [&](const std::string& property) {
        return machine
            .qmp_ok(R"({"execute": "qom-get", "arguments": {"path": "/machine/peripheral/umbra",)"
                    R"( "property": ")" +
                    property + R"("}})")
            .dump();
    };
    EXPECT_EQ(get("aw-bits"), "39");
    EXPECT_EQ(get("pt"), "false");
    EXPECT_EQ(get("caching-mode"), "true");
    EXPECT_NE(get("statistics").find("\"devices\""), std::string::npos);
}

TEST_F(CommandLine, DeviceOffMakesNone) {
    MachineOptions options{.viommu = Viommu::none};
    options.plugin_options = ",device=off";
    QtestMachine machine(options);
    EXPECT_EQ(
        machine.qmp(R"({"execute": "qom-list", "arguments": {"path": "/machine/peripheral"}})")
            .find("umbra"),
        std::string::npos);
}

TEST_F(CommandLine, PluginThatCannotMakeTheDevice) {
    expect_refused(run_refused(made_by_plugin(",aw-bits=39", {})), {"aw-bits=39", "device=on"});
    expect_refused(run_refused(made_by_plugin(",device=perhaps", {})), {"device", "on", "off"});
    expect_refused(run_refused(made_by_plugin(",device=on,nonsense=1", {})),
                   {"nonsense", "aw-bits", "caching-mode"});
    expect_refused(run_refused(made_by_plugin(",device=on,aw-bits=40", {})), {"aw-bits=40"});
    expect_refused(run_refused(made_by_plugin(",device=on", {"umbra-viommu"})),
                   {"device=on", "umbra-viommu"});
    expect_refused(run_refused(made_by_plugin(",device=on", {"umbra-probe,id=umbra"})), {"umbra"});
}

TEST_F(CommandLine, HelpListsEveryProperty) {
    const Refusal help =
        run_refused({"-M", "q35", "-plugin", "file=" + Environment::get().plugin + ",help=on"});
    ASSERT_TRUE(help.status.has_value());
    EXPECT_EQ(*help.status, 0) << help.output;
    for (const char* words :
         {"caching-mode", "aw-bits", "intremap", "eim", "pt", "device-iotlb", "snoop-control",
          "file=./umbra.so,device=on", "vfio-pci and vfio-user-pci devices after it"}) {
        EXPECT_NE(help.output.find(words), std::string::npos) << "no " << words << " in:\n"
                                                              << help.output;
    }
}

TEST_F(CommandLine, PropertiesAreListedOverQmp) {
    QtestMachine machine(umbra_with(""));
    const Json properties = machine.qmp_ok(
        R"({"execute": "device-list-properties", "arguments": {"typename": "umbra-viommu"}})");
    std::map<std::string, bool> described;
    for (const Json& property : properties) {
        described[property.at("name").get<std::string>()] = property.contains("description");
    }
    for (const char* property :
         {"caching-mode", "aw-bits", "intremap", "eim", "pt", "device-iotlb", "snoop-control"}) {
        ASSERT_EQ(described.count(property), 1u) << property;
        EXPECT_TRUE(described[property]) << property << " has no description";
    }
}

TEST_F(CommandLine, ProbesEntryLimit) {
    for (const char* limit : {"0", "99999999"}) {
        MachineOptions options{.viommu = Viommu::none};
        options.arguments = {"-device", std::string("umbra-probe,dma-entry-limit=") + limit};
        expect_refused(run_refused(options), {"dma-entry-limit"});
    }
}

}  // namespace
}  // namespace umbra::qtest
