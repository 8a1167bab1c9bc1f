// SPDX-License-Identifier: GPL-2.0-or-later
//
// Migration and snapshots of a machine: the state that must survive them.
#include <chrono>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>

#include "tests/qtest/pci_bridge.h"
#include "tests/qtest/register_values.h"
#include "tests/qtest/viommu_test.h"
#include "tests/support/temporary_folder.h"

namespace umbra::qtest {
namespace {

constexpr Iova kIova(0x8000'0000);

class Migration : public ViommuTest {};
UMBRA_ON_EACH_VIOMMU(Migration);

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

TEST_P(Migration, MigrationCarriesTheUnitOver) {
    const testing::TemporaryFolder folder;
    const std::string file = folder.file("machine");
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
        before = register_values(rig.driver);
        tail = rig.driver.tail();
        rig.machine.qmp_ok(R"({"execute": "migrate", "arguments": {"uri": "file:)" + file +
                           R"("}})");
        wait_migrated(rig.machine);
    }

    MachineOptions incoming = Rig::with_probes(small, "");
    incoming.arguments.insert(incoming.arguments.end(), {"-incoming", "file:" + file});
    QtestMachine machine(incoming);
    wait_migrated(machine);
    // A ModelDriver would clear the pages of its queue and tables, which are the migrated ones. So
    // the test drives the unit by hand from here on.
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

    for (std::size_t i = 0; i < kStateRegisters.size(); i++) {
        const bool moves = kStateRegisters.at(i) == driver::kQueueHead ||
                           kStateRegisters.at(i) == driver::kQueueTail;
        if (!moves) {
            EXPECT_EQ(machine.read32(kUnitBase + kStateRegisters.at(i)), before.at(2 + i))
                << "register " << kStateRegisters.at(i);
        }
    }
}

TEST_P(Migration, MigrationRebuildsHostMappings) {
    const testing::TemporaryFolder folder;
    const std::string file = folder.file("machine");
    MachineOptions small = options();
    small.memory_mib = 264;
    {
        Rig rig(small, ",listen=on");
        SecondStage table = rig.driver.new_table();
        table.map_pages(kIova, kData, 8);
        rig.driver.attach(kProbe, table, kDomain);
        rig.driver.enable_translation();
        ASSERT_EQ(joined(rig.probe.live_mappings()).size(), 1u);
        rig.machine.qmp_ok(R"({"execute": "migrate", "arguments": {"uri": "file:)" + file +
                           R"("}})");
        wait_migrated(rig.machine);
    }
    MachineOptions incoming = Rig::with_probes(small, ",listen=on");
    incoming.arguments.insert(incoming.arguments.end(), {"-incoming", "file:" + file});
    QtestMachine machine(incoming);
    wait_migrated(machine);
    ProbeDriver probe(machine, kProbe, probe_bar(0));
    const Mappings expected = {mapping(kIova, kData, 8 * kPageSize)};
    if (!on_umbra()) {
        const bool same = joined(probe.live_mappings()) == expected;
        RecordProperty("peer", same ? "rebuilt" : "not rebuilt");
        std::cout << "[ PEER     ] host mappings after migration: "
                  << (same ? "rebuilt" : "NOT rebuilt") << "\n";
        return;
    }
    EXPECT_EQ(joined(probe.live_mappings()), expected);
    EXPECT_TRUE(is_clean(machine));
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

TEST_P(Migration, LoadingASnapshotBringsTheOldStateBack) {
    const testing::TemporaryFolder folder;
    const std::string file = folder.file("machine");
    { std::ofstream(file).close(); }
    MachineOptions with_disk = options();
    with_disk.memory_mib = 264;
    with_disk.arguments = {"-blockdev", "driver=file,node-name=file,filename=" + file};
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
        const Mappings expected = {mapping(kIova, kData, kPageSize)};
        EXPECT_EQ(joined(rig.probe.live_mappings()), expected);
        EXPECT_TRUE(is_clean(rig.machine));
    }
}

// What a passed-through device writes is not tracked through unmaps, so its machine stays where it
// is. QEMU's VFIO says so too, in the versions that there are; the probe is no VFIO device.
class MigrationOfPassedThrough : public QemuTest {
  protected:
    static std::size_t reasons(QtestMachine& machine) {
        const Json answer = machine.qmp_ok(R"({"execute": "query-migrate"})");
        return answer.contains("blocked-reasons") ? answer.at("blocked-reasons").size() : 0;
    }
    static bool refuses(QtestMachine& machine) {
        const std::string answer =
            machine.qmp(R"({"execute": "migrate", "arguments": {"uri": "file:/dev/null"}})");
        return answer.find("is passed through behind umbra-viommu") != std::string::npos;
    }
};

TEST_F(MigrationOfPassedThrough, IsRefusedWithASentence) {
    Rig rig({.viommu = Viommu::umbra}, ",listen=on,container=on");
    EXPECT_EQ(reasons(rig.machine), 2u);
    EXPECT_TRUE(refuses(rig.machine));
    EXPECT_NE(rig.machine.monitor("savevm first").find("is passed through behind umbra-viommu"),
              std::string::npos);
}

TEST_F(MigrationOfPassedThrough, IsPossibleWhenTheDeviceHasGone) {
    MachineOptions with_port = {.viommu = Viommu::umbra};
    with_port.arguments = {"-global", kHotplugByRegisters, "-device", kRootPort};
    Rig rig(with_port);
    PciBridge port(rig.machine, kBridge);
    port.set_buses(1, 1);
    port.open_window();
    EXPECT_EQ(reasons(rig.machine), 0u);
    for (unsigned round = 0; round < 2; round++) {
        rig.machine.qmp_ok(
            R"({"execute": "device_add", "arguments": {"driver": "umbra-probe", "id": "late",)"
            R"( "bus": "root-port", "addr": "0", "listen": true, "container": true}})");
        port.switch_slot_on();
        EXPECT_EQ(reasons(rig.machine), 1u);
        EXPECT_TRUE(refuses(rig.machine));
        rig.machine.qmp_ok(R"({"execute": "device_del", "arguments": {"id": "late"}})");
        port.switch_slot_off();
        rig.machine.finish_unplugging();
        EXPECT_EQ(reasons(rig.machine), 0u);
    }
}

TEST_F(MigrationOfPassedThrough, IsNoMachineForOnlyMigratable) {
    MachineOptions options = {.viommu = Viommu::umbra};
    options.arguments = {"-only-migratable", "-device",
                         "umbra-probe,id=probe,addr=5,listen=on,container=on"};
    const Refusal refusal = run_refused(options);
    EXPECT_NE(refusal.status, 0);
    EXPECT_NE(refusal.output.find("is passed through behind umbra-viommu"), std::string::npos)
        << refusal.output;
}

}  // namespace
}  // namespace umbra::qtest
