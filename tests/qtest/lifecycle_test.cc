// SPDX-License-Identifier: GPL-2.0-or-later
//
// Reset and migration: what must be gone, and what must survive.
#include <filesystem>
#include <fstream>
#include <iostream>
#include <thread>

#include "plugin/probe/registers.h"
#include "tests/qtest/viommu_test.h"

namespace umbra::qtest {
namespace {

constexpr Iova kIova(0x8000'0000);

class Lifecycle : public ViommuTest {
  protected:
    static constexpr std::array<std::uint32_t, 12> kRegisters = {driver::kGlobalStatus,
                                                                 driver::kRootTableAddress,
                                                                 driver::kFaultStatus,
                                                                 driver::kFaultEventControl,
                                                                 driver::kFaultEventData,
                                                                 driver::kFaultEventAddress,
                                                                 driver::kQueueHead,
                                                                 driver::kQueueTail,
                                                                 driver::kQueueAddress,
                                                                 driver::kCompletionStatus,
                                                                 driver::kCompletionEventControl,
                                                                 driver::kInterruptTableAddress};

    static std::vector<std::uint64_t> registers(ModelDriver& driver) {
        std::vector<std::uint64_t> values = {driver.read64(driver::kCapability),
                                             driver.read64(driver::kExtendedCapability)};
        for (const std::uint32_t offset : kRegisters) {
            values.push_back(driver.read32(offset));
        }
        return values;
    }
};
UMBRA_ON_EACH_VIOMMU(Lifecycle);

TEST_P(Lifecycle, SystemResetRestoresEveryRegister) {
    Rig rig(options());
    const std::vector<std::uint64_t> fresh = registers(rig.driver);
    InterruptTable interrupts(rig.machine, rig.driver.pages(), 7);
    SecondStage table = rig.driver.new_table();
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    rig.driver.enable_interrupt_remapping(interrupts);
    rig.driver.write32(driver::kFaultEventData, 0x55);
    EXPECT_EQ(rig.probe.store(kIova, 1), DmaResult::fault);
    EXPECT_NE(registers(rig.driver), fresh);

    rig.machine.system_reset();
    EXPECT_EQ(registers(rig.driver), fresh);
    EXPECT_TRUE(rig.driver.take_faults().empty());
}

TEST_P(Lifecycle, NothingIsStaleAfterSystemReset) {
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

TEST_P(Lifecycle, ListenersLoseTheirMappingsAtSystemReset) {
    Rig rig(options(), ",listen=on");
    SecondStage table = rig.driver.new_table();
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    table.map_pages(kIova, kData, 8);
    ASSERT_TRUE(rig.driver.submit(Descriptor::iotlb_domain(kDomain)));
    const std::vector<LiveMapping> expected = {
        {.iova = kIova, .size = 8 * kPageSize, .target = kData, .permissions = 3}};
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

// A file that is gone when the test ends.
class TemporaryFile {
  public:
    TemporaryFile()
        : path_(std::filesystem::temp_directory_path() /
                ("umbra-qtest-" + std::to_string(::getpid()))) {}
    ~TemporaryFile() {
        std::error_code ignored;
        std::filesystem::remove(path_, ignored);
    }
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;

    [[nodiscard]] std::string path() const { return path_.string(); }

  private:
    std::filesystem::path path_;
};

void wait_migrated(QtestMachine& machine) {
    for (;;) {
        const Json answer = machine.qmp_ok(R"({"execute": "query-migrate"})");
        const std::string status =
            answer.contains("status") ? answer.at("status").get<std::string>() : "none";
        if (status == "completed") {
            return;
        }
        if (status == "failed") {
            throw TransportError("migration failed; " + machine.output());
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
}

TEST_P(Lifecycle, MigrationCarriesTheUnitOver) {
    const TemporaryFile file;
    MachineOptions small = options();
    small.memory_mib = 264;  // tables, kData, and little else to copy
    std::vector<std::uint64_t> before;
    unsigned tail = 0;
    {
        Rig rig(small);
        InterruptTable interrupts(rig.machine, rig.driver.pages(), 7);
        interrupts.set(3, {.vector = 0x71});
        SecondStage table = rig.driver.new_table();
        table.map(kIova, kData);
        rig.driver.attach(kProbe, table, kDomain);
        rig.driver.enable_translation();
        rig.driver.enable_interrupt_remapping(interrupts);
        rig.probe.configure_msi(remappable_address(3), 0);
        rig.machine.store64(kData, 42);
        EXPECT_EQ(rig.probe.load(kIova), 42u);
        // A fault that nobody has read yet.
        EXPECT_EQ(rig.probe.store(kIova + kPageSize, 1), DmaResult::fault);
        before = registers(rig.driver);
        tail = rig.driver.tail();
        rig.machine.qmp_ok(R"({"execute": "migrate", "arguments": {"uri": "file:)" + file.path() +
                           R"("}})");
        wait_migrated(rig.machine);
    }

    MachineOptions incoming = Rig::with_probes(small, "");
    incoming.arguments.insert(incoming.arguments.end(), {"-incoming", "file:" + file.path()});
    QtestMachine machine(incoming);
    wait_migrated(machine);
    // The driver's own state is the guest's, so it is carried by hand; its tables are in RAM, and
    // making a driver object clears new pages only beyond them.
    ProbeDriver probe(machine, kProbe, probe_bar(0));
    EXPECT_EQ(probe.load(kIova), 42u);
    probe.trigger_msi();
    EXPECT_EQ(machine.pending_vectors(), std::vector<unsigned>{0x71});

    const std::uint64_t queue = machine.read64(kUnitBase + driver::kQueueAddress);
    EXPECT_EQ(machine.read64(kUnitBase + driver::kQueueTail), std::uint64_t{tail} * 16);
    const std::uint64_t capability = machine.read64(kUnitBase + driver::kCapability);
    const std::uint64_t record = kUnitBase + driver::fault_record_offset(capability);
    EXPECT_EQ(machine.read64(record + 8) & 0xffff, kProbe.value());
    EXPECT_EQ(machine.read64(record), (kIova + kPageSize).value());

    // The queue goes on where it stood.
    const Gpa slot(queue + std::uint64_t{tail} * 16);
    const Descriptor wait = Descriptor::wait_status(kData + 8, 0x1234);
    machine.store64(slot + 8, wait.high);
    machine.store64(slot, wait.low);
    machine.write64(kUnitBase + driver::kQueueTail, (std::uint64_t{tail} + 1) * 16);
    EXPECT_EQ(machine.load64(kData + 8), 0x1234u);

    for (std::size_t i = 0; i < kRegisters.size(); i++) {
        const bool moves =
            kRegisters.at(i) == driver::kQueueHead || kRegisters.at(i) == driver::kQueueTail;
        if (!moves) {
            EXPECT_EQ(machine.read32(kUnitBase + kRegisters.at(i)), before.at(2 + i))
                << "register " << kRegisters.at(i);
        }
    }
}

TEST_P(Lifecycle, MigrationRebuildsHostMappings) {
    const TemporaryFile file;
    MachineOptions small = options();
    small.memory_mib = 264;
    {
        Rig rig(small, ",listen=on");
        SecondStage table = rig.driver.new_table();
        table.map_pages(kIova, kData, 8);
        rig.driver.attach(kProbe, table, kDomain);
        rig.driver.enable_translation();
        ASSERT_EQ(joined(rig.probe.live_mappings()).size(), 1u);
        rig.machine.qmp_ok(R"({"execute": "migrate", "arguments": {"uri": "file:)" + file.path() +
                           R"("}})");
        wait_migrated(rig.machine);
    }
    MachineOptions incoming = Rig::with_probes(small, ",listen=on");
    incoming.arguments.insert(incoming.arguments.end(), {"-incoming", "file:" + file.path()});
    QtestMachine machine(incoming);
    wait_migrated(machine);
    ProbeDriver probe(machine, kProbe, probe_bar(0));
    const std::vector<LiveMapping> expected = {
        {.iova = kIova, .size = 8 * kPageSize, .target = kData, .permissions = 3}};
    if (!on_umbra()) {
        const bool same = joined(probe.live_mappings()) == expected;
        RecordProperty("peer", same ? "rebuilt" : "not rebuilt");
        std::cout << "[ PEER     ] host mappings after migration: "
                  << (same ? "rebuilt" : "NOT rebuilt") << "\n";
        return;
    }
    EXPECT_EQ(joined(probe.live_mappings()), expected);
    EXPECT_TRUE(verification_of(machine).at("clean").get<bool>());
}

// Runs a QMP command that starts the job "job", and waits for its end.
void run_job(QtestMachine& machine, const std::string& command) {
    machine.qmp_ok(command);
    for (;;) {
        const Json jobs = machine.qmp_ok(R"({"execute": "query-jobs"})");
        const Json& job = jobs.at(0);
        if (job.at("status").get<std::string>() == "concluded") {
            if (job.contains("error")) {
                throw TransportError("job failed: " + job.at("error").get<std::string>());
            }
            machine.qmp_ok(R"({"execute": "job-dismiss", "arguments": {"id": "job"}})");
            return;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
}

TEST_P(Lifecycle, LoadingASnapshotBringsTheOldStateBack) {
    const TemporaryFile file;
    { std::ofstream(file.path()).close(); }
    MachineOptions with_disk = options();
    with_disk.memory_mib = 264;
    with_disk.arguments = {"-blockdev", "driver=file,node-name=file,filename=" + file.path()};
    Rig rig(with_disk, ",listen=on");
    run_job(rig.machine, R"({"execute": "blockdev-create", "arguments": {"job-id": "job",)"
                         R"("options": {"driver": "qcow2", "file": "file", "size": 1048576}}})");
    rig.machine.qmp_ok(R"({"execute": "blockdev-add", "arguments": {)"
                       R"("driver": "qcow2", "node-name": "disk", "file": "file"}})");

    SecondStage table = rig.driver.new_table();
    table.map(kIova, kData);
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    rig.machine.store64(kData, 1);
    EXPECT_EQ(rig.probe.load(kIova), 1u);
    const std::string vmstate = R"("tag": "first", "vmstate": "disk", "devices": ["disk"]}})";
    run_job(rig.machine,
            R"({"execute": "snapshot-save", "arguments": {"job-id": "job", )" + vmstate);

    table.map(kIova, kData + kPageSize);
    table.map(kIova + kPageSize, kData);
    rig.machine.store64(kData + kPageSize, 2);
    ASSERT_TRUE(rig.driver.submit(Descriptor::iotlb_domain(kDomain)));
    EXPECT_EQ(rig.probe.load(kIova), 2u);
    EXPECT_EQ(rig.probe.load(kIova + kPageSize), 1u);

    run_job(rig.machine,
            R"({"execute": "snapshot-load", "arguments": {"job-id": "job", )" + vmstate);
    EXPECT_EQ(rig.probe.load(kIova), 1u);
    EXPECT_EQ(rig.probe.load(kIova + kPageSize), std::nullopt);
    if (on_umbra()) {
        const std::vector<LiveMapping> expected = {
            {.iova = kIova, .size = kPageSize, .target = kData, .permissions = 3}};
        EXPECT_EQ(joined(rig.probe.live_mappings()), expected);
        EXPECT_TRUE(verification_of(rig.machine).at("clean").get<bool>());
    }
}

TEST_P(Lifecycle, ProbesComeAndGo) {
    MachineOptions with_port = options();
    // Hot-plug by the port's own registers: with the ACPI way an AML program would have to run.
    with_port.arguments = {"-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
                           "-device", "pcie-root-port,id=root-port,chassis=1,addr=8"};
    Rig rig(with_port);
    constexpr SourceId kPort(0, 8 << 3);
    constexpr SourceId kBehind(1, 0);
    rig.machine.config_write32(kPort, 0x18, 0x0001'0100);
    rig.machine.config_write32(kPort, 0x20, 0xe100'e100);
    rig.machine.config_write16(kPort, 0x04, 0x6);
    SecondStage table = rig.driver.new_table();
    table.map(kIova, kData);
    rig.driver.attach(kBehind, table, kDomain);
    rig.driver.enable_translation();

    for (std::uint64_t round = 1; round <= 3; round++) {
        rig.machine.qmp_ok(
            R"({"execute": "device_add", "arguments": {"driver": "umbra-probe", "id": "late",)"
            R"( "bus": "root-port", "addr": "0", "listen": true}})");
        // The guest's part of hot-plug: power indicator and power on, later both off, in the slot
        // control register of the port's PCI Express capability.
        const unsigned slot_control = rig.machine.find_capability(kPort, 0x10) + 0x18;
        rig.machine.config_write16(kPort, slot_control, 0x0100);
        ProbeDriver late(rig.machine, kBehind, 0xe100'0000);
        EXPECT_EQ(late.store(kIova, round), DmaResult::ok);
        EXPECT_EQ(rig.machine.load64(kData), round);
        EXPECT_EQ(late.live_mappings().size(), 1u);
        rig.machine.qmp_ok(R"({"execute": "device_del", "arguments": {"id": "late"}})");
        rig.machine.config_write16(kPort, slot_control, 0x0700);
        ASSERT_EQ(rig.machine.config_read32(kBehind, 0), 0xffff'ffffu);
    }
    EXPECT_TRUE(rig.machine.runs());
}

// The bridge takes its bus along, whose number the unit read from the bridge's registers.
TEST_P(Lifecycle, BridgeGoesWithTheProbeBehindIt) {
    if (!on_umbra()) {
        GTEST_SKIP() << "intel-iommu goes on using the bus of the bridge, which is freed: now and "
                        "then it crashes";
    }
    MachineOptions with_bridge = options();
    with_bridge.arguments = {"-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
                             "-device", "pcie-root-port,id=root-port,chassis=1,addr=8",
                             "-device", "pcie-pci-bridge,id=bridge,bus=root-port",
                             "-device", "umbra-probe,bus=bridge,addr=1,listen=on"};
    Rig rig(with_bridge);
    constexpr SourceId kPort(0, 8 << 3);
    constexpr SourceId kBridge(1, 0);
    constexpr SourceId kBehind(2, 1 << 3);
    rig.machine.config_write32(kPort, 0x18, 0x0002'0100);
    rig.machine.config_write32(kPort, 0x20, 0xe100'e100);
    rig.machine.config_write16(kPort, 0x04, 0x6);
    rig.machine.config_write32(kBridge, 0x18, 0x0002'0201);
    rig.machine.config_write32(kBridge, 0x20, 0xe100'e100);
    rig.machine.config_write16(kBridge, 0x04, 0x6);
    ProbeDriver behind(rig.machine, kBehind, 0xe100'0000);
    SecondStage table = rig.driver.new_table();
    table.map(kIova, kData);
    // A conventional bus behind a bridge has one requester id.
    rig.driver.attach(SourceId(2, 0), table, kDomain);
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    EXPECT_EQ(behind.store(kIova, 1), DmaResult::ok);
    EXPECT_EQ(behind.live_mappings().size(), 1u);

    rig.machine.qmp_ok(R"({"execute": "device_del", "arguments": {"id": "bridge"}})");
    const unsigned slot_control = rig.machine.find_capability(kPort, 0x10) + 0x18;
    rig.machine.config_write16(kPort, slot_control, 0x0700);
    ASSERT_EQ(rig.machine.config_read32(kBridge, 0), 0xffff'ffffu);
    rig.machine.finish_unplugging();

    // Everything that goes through all devices.
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
TEST_P(Lifecycle, SwitchGoesWithTheProbesBehindIt) {
    if (!on_umbra()) {
        GTEST_SKIP() << "intel-iommu goes on using buses that are freed";
    }
    for (const char* properties : {",listen=on", ",listen=on,container=on"}) {
        SCOPED_TRACE(properties);
        const std::string probe = std::string("umbra-probe,addr=0") + properties;
        MachineOptions with_switch = options();
        with_switch.arguments = {"-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
                                 "-device", "pcie-root-port,id=root-port,chassis=1,addr=8",
                                 "-device", "x3130-upstream,id=switch,bus=root-port",
                                 "-device", "xio3130-downstream,id=left,bus=switch,chassis=2",
                                 "-device", "xio3130-downstream,id=right,bus=switch,chassis=3",
                                 "-device", probe + ",bus=left",
                                 "-device", probe + ",bus=right"};
        Rig rig(with_switch);
        constexpr SourceId kPort(0, 8 << 3);
        constexpr SourceId kUpstream(1, 0);
        constexpr SourceId kLeft(2, 0);
        constexpr SourceId kRight(2, 1 << 3);
        rig.machine.config_write32(kPort, 0x18, 0x0004'0100);
        rig.machine.config_write32(kUpstream, 0x18, 0x0004'0201);
        rig.machine.config_write32(kLeft, 0x18, 0x0003'0302);
        rig.machine.config_write32(kRight, 0x18, 0x0004'0402);
        SecondStage table = rig.driver.new_table();
        table.map_pages(kIova, kData, 8);
        rig.driver.attach(SourceId(3, 0), table, kDomain);
        rig.driver.attach(SourceId(4, 0), table, kDomain);
        rig.driver.attach(kProbe, table, kDomain);
        rig.driver.enable_translation();

        rig.machine.qmp_ok(R"({"execute": "device_del", "arguments": {"id": "switch"}})");
        const unsigned slot_control = rig.machine.find_capability(kPort, 0x10) + 0x18;
        rig.machine.config_write16(kPort, slot_control, 0x0700);
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

// Bus numbers are the guest's to assign, and with another one a device has another context entry.
// No invalidation says so.
TEST_P(Lifecycle, RenumberedBusHasTheContextsOfItsNewNumber) {
    if (!on_umbra()) {
        GTEST_SKIP() << "intel-iommu keeps the view that it chose at the last invalidation";
    }
    for (const char* properties : {"", ",listen=on", ",listen=on,container=on"}) {
        SCOPED_TRACE(properties);
        MachineOptions with_port = options();
        with_port.arguments = {"-device", "pcie-root-port,id=root-port,chassis=1,addr=8", "-device",
                               std::string("umbra-probe,bus=root-port,addr=0") + properties};
        Rig rig(with_port);
        constexpr SourceId kPort(0, 8 << 3);
        rig.machine.config_write32(kPort, 0x20, 0xe100'e100);
        rig.machine.config_write16(kPort, 0x04, 0x6);
        // Without a number it is on bus 0.
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
        const auto expect_mapped = [&](ProbeDriver& probe, const std::vector<LiveMapping>& wanted) {
            if (*properties != '\0') {
                EXPECT_EQ(joined(probe.live_mappings()), wanted);
            }
        };

        rig.machine.config_write32(kPort, 0x18, 0x0001'0100);
        ProbeDriver blocked(rig.machine, SourceId(1, 0), 0xe100'0000);
        EXPECT_EQ(blocked.store(Iova(kData.value()), 1), DmaResult::fault);
        EXPECT_EQ(rig.machine.load64(kData), 0u);
        expect_mapped(blocked, {});
        const std::vector<Fault> faults = rig.driver.take_faults();
        ASSERT_EQ(faults.size(), 1u);
        EXPECT_EQ(faults[0].source, SourceId(1, 0));

        rig.machine.config_write32(kPort, 0x18, 0x0002'0200);
        ProbeDriver second(rig.machine, SourceId(2, 0), 0xe100'0000);
        expect_mapped(second,
                      {{.iova = kIova, .size = kPageSize, .target = kData, .permissions = 3}});
        EXPECT_EQ(second.store(kIova, 2), DmaResult::ok);
        EXPECT_EQ(rig.machine.load64(kData), 2u);

        rig.machine.config_write32(kPort, 0x18, 0x0003'0300);
        ProbeDriver third(rig.machine, SourceId(3, 0), 0xe100'0000);
        expect_mapped(
            third,
            {{.iova = kIova, .size = kPageSize, .target = kData + kPageSize, .permissions = 3}});
        EXPECT_EQ(third.store(kIova, 3), DmaResult::ok);
        EXPECT_EQ(rig.machine.load64(kData + kPageSize), 3u);

        // And to none again; the window still leads to the probe.
        rig.machine.config_write32(kPort, 0x18, 0);
        EXPECT_EQ(third.store(Iova(kData.value()), 4), DmaResult::ok);
        EXPECT_EQ(rig.machine.load64(kData), 4u);
        EXPECT_TRUE(verification_of(rig.machine).at("clean").get<bool>());
    }
}

}  // namespace
}  // namespace umbra::qtest
