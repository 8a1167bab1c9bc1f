// SPDX-License-Identifier: GPL-2.0-or-later
//
// Interrupt remapping: messages of devices and of the I/O APIC, through the unit to a local APIC
// (specification 5).
#include <algorithm>

#include "tests/qtest/viommu_test.h"

namespace umbra::qtest {
namespace {

using driver::Reason;

constexpr std::uint16_t kHandle = 3;
constexpr unsigned kVector = 0x71;
// 2^(7 + 1) entries.
constexpr unsigned kTableSize = 7;

std::vector<unsigned> only(unsigned vector) {
    return {vector};
}

class Interrupts : public ViommuTest {
  protected:
    struct Remapped {
        explicit Remapped(MachineOptions options, bool extended_mode = false,
                          bool compatibility_format = false)
            : rig(with_cpus(std::move(options))),
              table(rig.machine, rig.driver.pages(), kTableSize),
              mode(extended_mode) {
            rig.driver.enable_interrupt_remapping(table, extended_mode, compatibility_format);
        }

        static MachineOptions with_cpus(MachineOptions options) {
            options.cpus = 2;
            return options;
        }

        // Writes an entry and invalidates it.
        void set(std::uint16_t index, InterruptEntry entry) {
            entry.extended_mode = mode;
            table.set(index, entry);
            EXPECT_TRUE(rig.driver.submit(Descriptor::interrupt_entries(index, 0)));
        }

        void expect_blocked(Reason reason, std::uint16_t index) {
            EXPECT_TRUE(rig.machine.pending_vectors(0).empty());
            EXPECT_TRUE(rig.machine.pending_vectors(1).empty());
            const std::vector<Fault> faults = rig.driver.take_faults();
            ASSERT_EQ(faults.size(), 1u);
            EXPECT_EQ(faults[0].source, kProbe);
            EXPECT_EQ(faults[0].reason, reason)
                << "reason " << static_cast<unsigned>(faults[0].reason);
            EXPECT_EQ(faults[0].interrupt_index(), index);
        }

        Rig rig;
        InterruptTable table;
        bool mode;
    };
};
UMBRA_ON_EACH_VIOMMU(Interrupts);

TEST_P(Interrupts, PassUnchangedWhileRemappingIsOff) {
    Rig rig(options());
    rig.probe.configure_msi(0xfee0'0000, kVector);
    rig.probe.trigger_msi();
    EXPECT_EQ(rig.machine.pending_vectors(), only(kVector));
}

TEST_P(Interrupts, MsiTakesVectorAndDestinationFromItsEntry) {
    Remapped remapped(options());
    remapped.set(kHandle, {.vector = kVector, .destination = 1});
    remapped.rig.probe.configure_msi(remappable_address(kHandle), 0);
    remapped.rig.probe.trigger_msi();
    EXPECT_TRUE(remapped.rig.machine.pending_vectors(0).empty());
    EXPECT_EQ(remapped.rig.machine.pending_vectors(1), only(kVector));
    EXPECT_TRUE(remapped.rig.driver.take_faults().empty());
}

TEST_P(Interrupts, SubhandleIsAddedToTheHandle) {
    Remapped remapped(options());
    remapped.set(kHandle + 2, {.vector = kVector});
    EXPECT_EQ(remapped.rig.probe.send_message(remappable_address(kHandle, true), 2), DmaResult::ok);
    EXPECT_EQ(remapped.rig.machine.pending_vectors(), only(kVector));
}

TEST_P(Interrupts, HandleBit15) {
    // 64 Ki entries, so that index 0x8003 exists.
    Rig rig(options());
    InterruptTable table(rig.machine, rig.driver.pages(), 15);
    table.set(0x8003, {.vector = kVector});
    table.set(0x0003, {.vector = 0x33});
    rig.driver.enable_interrupt_remapping(table);
    rig.probe.configure_msi(remappable_address(0x8003), 0);
    rig.probe.trigger_msi();
    EXPECT_EQ(rig.machine.pending_vectors(), only(kVector));
}

TEST_P(Interrupts, EntryNotPresentFaults) {
    Remapped remapped(options());
    remapped.rig.probe.configure_msi(remappable_address(kHandle), 0);
    remapped.rig.probe.trigger_msi();
    remapped.expect_blocked(Reason::interrupt_not_present, kHandle);
}

TEST_P(Interrupts, IndexBeyondTheTableFaults) {
    constexpr std::uint16_t kBeyond = 1 << (kTableSize + 1);
    Remapped remapped(options());
    remapped.rig.probe.configure_msi(remappable_address(kBeyond), 0);
    remapped.rig.probe.trigger_msi();
    remapped.expect_blocked(Reason::interrupt_index_beyond_table, kBeyond);
}

TEST_P(Interrupts, ReservedBitsOfAnEntryFault) {
    Remapped remapped(options());
    remapped.table.set_raw(kHandle, std::uint64_t{kVector} << 16 | 1u << 24 | 1, 0);
    ASSERT_TRUE(remapped.rig.driver.submit(Descriptor::interrupt_entries_global()));
    remapped.rig.probe.configure_msi(remappable_address(kHandle), 0);
    remapped.rig.probe.trigger_msi();
    remapped.expect_blocked(Reason::interrupt_entry_reserved, kHandle);
}

TEST_P(Interrupts, TableOutsideOfRamFaults) {
    Rig rig(options());
    rig.driver.enable_queue();
    rig.driver.write64(driver::kInterruptTableAddress, 0x7f'ffff'f000 | kTableSize);
    ASSERT_TRUE(rig.driver.command(driver::kSetInterruptTable));
    ASSERT_TRUE(rig.driver.command(driver::kInterruptRemappingEnable));
    rig.probe.configure_msi(remappable_address(kHandle), 0);
    rig.probe.trigger_msi();
    EXPECT_TRUE(rig.machine.pending_vectors().empty());
    const std::vector<Fault> faults = rig.driver.take_faults();
    ASSERT_EQ(faults.size(), 1u);
    EXPECT_EQ(faults[0].reason, Reason::interrupt_table_access);
}

TEST_P(Interrupts, CompatibilityFormatIsBlocked) {
    if (!on_umbra()) {
        GTEST_SKIP() << "intel-iommu lets compatibility-format messages through unless in EIM";
    }
    Remapped remapped(options());
    remapped.rig.probe.configure_msi(0xfee0'0000, kVector);
    remapped.rig.probe.trigger_msi();
    EXPECT_TRUE(remapped.rig.machine.pending_vectors().empty());
    const std::vector<Fault> faults = remapped.rig.driver.take_faults();
    ASSERT_EQ(faults.size(), 1u);
    EXPECT_EQ(faults[0].reason, Reason::interrupt_compatibility_blocked);
    EXPECT_EQ(faults[0].source, kProbe);
}

TEST_P(Interrupts, CompatibilityFormatPassesWhenAllowed) {
    if (!on_umbra()) {
        GTEST_SKIP() << "intel-iommu has no switch for compatibility-format messages (CFI)";
    }
    Remapped remapped(options(), false, true);
    remapped.rig.probe.configure_msi(0xfee0'0000, kVector);
    remapped.rig.probe.trigger_msi();
    EXPECT_EQ(remapped.rig.machine.pending_vectors(), only(kVector));
    EXPECT_TRUE(remapped.rig.driver.take_faults().empty());
}

struct SourceCase {
    unsigned validation;
    unsigned qualifier;
    SourceId source;
    bool accepted;
};

TEST_P(Interrupts, SourceIsVerified) {
    constexpr std::uint8_t kSlot = kProbe.devfn();
    std::vector<SourceCase> cases = {
        {0, 0, SourceId(0x77, 0x77), true},
        {1, 0, kProbe, true},
        {1, 0, kSecondProbe, false},
        {1, 0, SourceId(0, kSlot | 1), false},
        // The qualifier ignores function bit 2, bits 2:1, bits 2:0.
        {1, 1, SourceId(0, kSlot | 4), true},
        {1, 1, SourceId(0, kSlot | 2), false},
        {1, 2, SourceId(0, kSlot | 6), true},
        {1, 2, SourceId(0, kSlot | 1), false},
        {1, 3, SourceId(0, kSlot | 7), true},
        {1, 3, SourceId(1, kSlot), false},
        // First bus in the high byte, last bus in the low one.
        {2, 0, SourceId(0, 0), true},
        {2, 0, SourceId(1, 2), false},
    };
    if (on_umbra()) {
        // The peer takes the low byte for the first bus and the high byte for the last.
        cases.push_back({2, 0, SourceId(0, 5), true});
    }
    Remapped remapped(options());
    unsigned vector = 0x40;
    for (const SourceCase& param : cases) {
        SCOPED_TRACE("validation " + std::to_string(param.validation) + " qualifier " +
                     std::to_string(param.qualifier) + " source " +
                     std::to_string(param.source.value()));
        vector++;
        remapped.set(kHandle, {.vector = static_cast<std::uint8_t>(vector),
                               .source = param.source,
                               .source_qualifier = param.qualifier,
                               .source_validation = param.validation});
        remapped.rig.probe.configure_msi(remappable_address(kHandle), 0);
        remapped.rig.probe.trigger_msi();
        const std::vector<unsigned> pending = remapped.rig.machine.pending_vectors();
        EXPECT_EQ(std::ranges::count(pending, vector), param.accepted ? 1 : 0);
        const std::vector<Fault> faults = remapped.rig.driver.take_faults();
        ASSERT_EQ(faults.size(), param.accepted ? 0u : 1u);
        if (!param.accepted) {
            EXPECT_EQ(faults[0].reason, Reason::interrupt_source_rejected);
            EXPECT_EQ(faults[0].source, kProbe);
        }
    }
}

TEST_P(Interrupts, FaultProcessingDisabledRecordsNothing) {
    Remapped remapped(options());
    remapped.set(kHandle, {.fault_processing_disabled = true,
                           .vector = kVector,
                           .source = kSecondProbe,
                           .source_validation = 1});
    remapped.rig.probe.configure_msi(remappable_address(kHandle), 0);
    remapped.rig.probe.trigger_msi();
    EXPECT_TRUE(remapped.rig.machine.pending_vectors().empty());
    EXPECT_TRUE(remapped.rig.driver.take_faults().empty());
}

TEST_P(Interrupts, ChangedEntryCountsAfterInvalidation) {
    const std::array<Descriptor, 2> kinds = {Descriptor::interrupt_entries_global(),
                                             Descriptor::interrupt_entries(kHandle & ~1u, 1)};
    for (const Descriptor& kind : kinds) {
        Remapped remapped(options());
        remapped.set(kHandle, {.vector = kVector});
        remapped.rig.probe.configure_msi(remappable_address(kHandle), 0);
        remapped.rig.probe.trigger_msi();
        EXPECT_EQ(remapped.rig.machine.pending_vectors(0), only(kVector));

        remapped.table.set(kHandle, {.vector = kVector + 1, .destination = 1});
        ASSERT_TRUE(remapped.rig.driver.submit(kind));
        remapped.rig.probe.trigger_msi();
        EXPECT_EQ(remapped.rig.machine.pending_vectors(0), only(kVector));
        EXPECT_EQ(remapped.rig.machine.pending_vectors(1), only(kVector + 1));
    }
}

TEST_P(Interrupts, InterruptMessagesAreNotTranslatedAsDma) {
    Remapped remapped(options());
    SecondStage table = remapped.rig.driver.new_table();
    remapped.rig.driver.attach(kProbe, table, kDomain);
    remapped.rig.driver.enable_translation();
    remapped.set(kHandle, {.vector = kVector});
    remapped.rig.probe.configure_msi(remappable_address(kHandle), 0);
    remapped.rig.probe.trigger_msi();
    EXPECT_EQ(remapped.rig.machine.pending_vectors(), only(kVector));
    EXPECT_TRUE(remapped.rig.driver.take_faults().empty());
}

TEST_P(Interrupts, IoApicIsRemapped) {
    // The I/O APIC's requester id in QEMU's DMAR tables: bus 0xff, device 0, function 0.
    constexpr SourceId kIoApic(0xff, 0);
    constexpr unsigned kPin = 20;
    constexpr std::uint64_t kSelect = 0xfec0'0000;
    constexpr std::uint64_t kData = 0xfec0'0010;
    Remapped remapped(options());
    remapped.set(kHandle,
                 {.vector = kVector, .destination = 1, .source = kIoApic, .source_validation = 1});
    // Redirection entry in remappable format: handle 14:0 in bits 63:49, format in bit 48. The
    // vector must agree with the remapped one's for level-triggered interrupts only.
    QtestMachine& machine = remapped.rig.machine;
    machine.write32(kSelect, 0x10 + kPin * 2 + 1);
    machine.write32(kData, std::uint32_t{kHandle} << 17 | 1u << 16);
    machine.write32(kSelect, 0x10 + kPin * 2);
    machine.write32(kData, kVector);
    machine.set_irq("/machine/q35/ioapic", kPin, true);
    machine.set_irq("/machine/q35/ioapic", kPin, false);
    EXPECT_TRUE(machine.pending_vectors(0).empty());
    EXPECT_EQ(machine.pending_vectors(1), only(kVector));
    EXPECT_TRUE(remapped.rig.driver.take_faults().empty());
}

class ExtendedInterruptMode : public QemuTest {};

TEST_F(ExtendedInterruptMode, DestinationIs32Bits) {
    MachineOptions options{.viommu = Viommu::umbra};
    options.viommu_properties = ",eim=on";
    options.cpus = 2;
    Rig rig(options);
    ASSERT_NE(rig.driver.extended_capability() & driver::kEcapExtendedInterruptMode, 0u);
    InterruptTable table(rig.machine, rig.driver.pages(), kTableSize);
    table.set(kHandle, {.vector = kVector, .destination = 1, .extended_mode = true});
    rig.driver.enable_interrupt_remapping(table, true);
    rig.probe.configure_msi(remappable_address(kHandle), 0);
    rig.probe.trigger_msi();
    EXPECT_TRUE(rig.machine.pending_vectors(0).empty());
    EXPECT_EQ(rig.machine.pending_vectors(1), only(kVector));
}

// A device's accesses to the interrupt range that are no interrupt messages.
class InterruptRange : public QemuTest {
  protected:
    static constexpr Iova kInRange{0xfee0'1000};

    static void expect_fault(Rig& rig, bool read) {
        const std::vector<Fault> faults = rig.driver.take_faults();
        ASSERT_EQ(faults.size(), 1u);
        EXPECT_EQ(faults[0].source, kProbe);
        EXPECT_EQ(faults[0].reason, Reason::interrupt_request_reserved)
            << "reason " << static_cast<unsigned>(faults[0].reason);
        EXPECT_EQ(faults[0].read, read);
    }
};

TEST_F(InterruptRange, ReadsAndLongWritesOfATranslatedDeviceFault) {
    Rig rig(MachineOptions{.viommu = Viommu::umbra});
    SecondStage table = rig.driver.new_table();
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    EXPECT_EQ(rig.probe.load(kInRange), std::nullopt);
    expect_fault(rig, true);
    EXPECT_EQ(rig.probe.store(kInRange, 0), DmaResult::fault);
    expect_fault(rig, false);
}

TEST_F(InterruptRange, ReadIsRefusedWithoutAFaultWhileTranslationIsOff) {
    Rig rig(MachineOptions{.viommu = Viommu::umbra});
    EXPECT_EQ(rig.probe.load(kInRange), std::nullopt);
    EXPECT_TRUE(rig.driver.take_faults().empty());
}

}  // namespace
}  // namespace umbra::qtest
