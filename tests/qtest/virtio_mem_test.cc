// SPDX-License-Identifier: GPL-2.0-or-later
//
// Memory that comes and goes in blocks (virtio-mem). A block that the guest has not plugged must
// not take host memory, and a mapping for a device would pin it.
#include "plugin/probe/registers.h"
#include "tests/qtest/viommu_test.h"
#include "tests/qtest/virtio_driver.h"

namespace umbra::qtest {
namespace {

constexpr Iova kIova(0x4000'0000);
constexpr SourceId kMemoryDevice(0, 7 << 3);
constexpr Gpa kMemory(0x1'4000'0000);
constexpr std::uint64_t kBlock = std::uint64_t{2} << 20;

// The guest's part of virtio-mem (Virtual I/O Device specification 1.2, 5.15), as far as plugging
// and unplugging needs it.
class MemoryDriver {
  public:
    enum Request : std::uint16_t { plug = 0, unplug = 1, unplug_all = 2 };

    // `bar` is where the device's registers go, `ring` four pages of guest RAM.
    MemoryDriver(QtestMachine& machine, std::uint64_t bar, Gpa ring)
        : machine_(machine), virtio_(machine, kMemoryDevice, bar), ring_(ring) {
        // Unplugged memory is not accessed; version 1.
        constexpr std::uint64_t kFeatures = std::uint64_t{1} << 1 | std::uint64_t{1} << 32;
        virtio_.start(kFeatures, {.descriptors = ring.value(),
                                  .available = available().value(),
                                  .used = used().value()});
    }

    // True if the device acknowledged it.
    [[nodiscard]] bool request(Request type, Gpa address = {}, std::uint16_t blocks = 0) {
        machine_.store64(message(), type);
        machine_.store64(message() + 8, address.value());
        machine_.store64(message() + 16, blocks);
        machine_.store64(message() + 24, 0xffff);
        set_descriptor(0, message(), 24, VirtioDriver::kNext);
        set_descriptor(1, message() + 24, 16, VirtioDriver::kWrite);
        virtio_.offer(available());
        virtio_.wait_returned([this] { return machine_.load64(used()) >> 16 & 0xffff; });
        return (machine_.load64(message() + 24) & 0xffff) == 0;
    }

  private:
    void set_descriptor(unsigned index, Gpa address, std::uint32_t length, std::uint16_t flags) {
        const Gpa slot = ring_ + std::uint64_t{index} * 16;
        machine_.store64(slot, address.value());
        machine_.store64(slot + 8, VirtioDriver::descriptor_tail(index, length, flags));
    }
    [[nodiscard]] Gpa available() const { return ring_ + kPageSize; }
    [[nodiscard]] Gpa used() const { return ring_ + 2 * kPageSize; }
    [[nodiscard]] Gpa message() const { return ring_ + 3 * kPageSize; }

    QtestMachine& machine_;
    VirtioDriver virtio_;
    Gpa ring_;
};

// The parameter is more of the memory device's properties.
class VirtioMem : public QemuTest, public ::testing::WithParamInterface<const char*> {
  protected:
    static MachineOptions options() {
        MachineOptions options{.viommu = Viommu::umbra};
        options.arguments = {"-m",
                             "512M,maxmem=4G",
                             "-object",
                             "memory-backend-ram,id=m,size=1G",
                             "-device",
                             std::string("virtio-mem-pci,id=memory,memdev=m,addr=7,block-size=2M,"
                                         "requested-size=0,memaddr=0x140000000") +
                                 GetParam()};
        return options;
    }

    // kProbe listens in kDomain; translation is on, nothing mapped and nothing plugged.
    struct Listening {
        Listening() : rig(options(), ",listen=on"), table(rig.driver.new_table()) {
            rig.driver.attach(kProbe, table, kDomain);
            rig.driver.enable_translation();
        }

        void request_size(std::uint64_t bytes) {
            rig.machine.set_property("/machine/peripheral/memory", "requested-size",
                                     std::to_string(bytes));
        }
        [[nodiscard]] Mappings live() { return joined(rig.probe.live_mappings()); }
        [[nodiscard]] std::int64_t not_ram() {
            return statistics_of(rig.machine).at("shadow").at("not-ram").get<std::int64_t>();
        }

        Rig rig;
        SecondStage table;
    };
};
INSTANTIATE_TEST_SUITE_P(On, VirtioMem, ::testing::Values("", ",dynamic-memslots=on"),
                         [](const auto& info) { return info.index == 0 ? "whole" : "memslots"; });

TEST_P(VirtioMem, WhatIsNotPluggedIsNotMapped) {
    Listening on;
    on.table.map(kIova, kMemory);
    ASSERT_TRUE(on.rig.driver.submit(Descriptor::iotlb_pages(kDomain, kIova, 0)));
    EXPECT_TRUE(on.live().empty());
    EXPECT_EQ(on.not_ram(), 1);
    expect_no_errors(on.rig.machine);
}

TEST_P(VirtioMem, TablesAreNotReadWhereNothingIsPlugged) {
    Listening on;
    on.rig.driver.contexts().set(kSecondProbe,
                                 {.table = kMemory, .levels = 4, .domain = kOtherDomain});
    ASSERT_TRUE(on.rig.driver.submit(Descriptor::context_device(kOtherDomain, kSecondProbe)));
    EXPECT_EQ(on.rig.second.store(kIova, 1), DmaResult::fault);
    const std::vector<Fault> faults = on.rig.driver.take_faults();
    ASSERT_EQ(faults.size(), 1u);
    EXPECT_EQ(faults[0].reason, driver::Reason::context_invalid);
}

TEST_P(VirtioMem, MappingsComeAndGoWithTheBlocks) {
    Listening on;
    MemoryDriver memory(on.rig.machine, probe_bar(2), on.rig.driver.pages().allocate(4));
    on.request_size(4 * kBlock);
    // The last page of one block, all of the next two, the first page of the one after.
    const std::uint64_t pages = 2 * kBlock / kPageSize + 2;
    const Gpa first = kMemory + (kBlock - kPageSize);
    on.table.map_pages(kIova, first, pages);
    ASSERT_TRUE(on.rig.driver.submit(Descriptor::iotlb_domain(kDomain)));
    EXPECT_TRUE(on.live().empty());

    // Nobody invalidates anything from here on.
    ASSERT_TRUE(memory.request(MemoryDriver::plug, kMemory + kBlock, 1));
    EXPECT_EQ(on.live(), Mappings{mapping(kIova + kPageSize, kMemory + kBlock, kBlock)});
    on.rig.machine.write64(kMemory.value() + kBlock, 0x55);
    EXPECT_EQ(on.rig.probe.load(kIova + kPageSize), 0x55u);

    ASSERT_TRUE(memory.request(MemoryDriver::plug, kMemory, 1));
    ASSERT_TRUE(memory.request(MemoryDriver::plug, kMemory + 2 * kBlock, 2));
    EXPECT_EQ(on.live(), Mappings{mapping(kIova, first, pages * kPageSize)});
    expect_no_errors(on.rig.machine);

    ASSERT_TRUE(memory.request(MemoryDriver::unplug, kMemory + kBlock, 1));
    const Mappings around = {
        mapping(kIova, first, kPageSize),
        mapping(kIova + (kPageSize + kBlock), kMemory + 2 * kBlock, kBlock + kPageSize)};
    EXPECT_EQ(on.live(), around);
    expect_no_errors(on.rig.machine);

    ASSERT_TRUE(memory.request(MemoryDriver::unplug_all));
    EXPECT_TRUE(on.live().empty());
    expect_no_errors(on.rig.machine);
    expect_nothing_refused(on.rig.probe);

    // In reverse, so that a stretch grows at its front as well.
    for (std::uint64_t block = 4; block-- > 0;) {
        ASSERT_TRUE(memory.request(MemoryDriver::plug, kMemory + block * kBlock, 1));
    }
    EXPECT_EQ(on.live(), Mappings{mapping(kIova, first, pages * kPageSize)});
    expect_no_errors(on.rig.machine);
    // A reset unplugs everything.
    on.rig.machine.system_reset();
    EXPECT_TRUE(on.rig.machine.runs());
}

}  // namespace
}  // namespace umbra::qtest
