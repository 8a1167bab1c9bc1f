// SPDX-License-Identifier: GPL-2.0-or-later
//
// A guest that writes nonsense everywhere: QEMU goes on answering, and a reset makes all well.
#include <iostream>
#include <random>

#include "tests/qtest/viommu_test.h"

namespace umbra::qtest {
namespace {

class HostileTables : public QemuTest {
  protected:
    // A unit that works: translation of one page after a system reset.
    static void expect_healthy(QtestMachine& machine) {
        machine.system_reset();
        ProbeDriver probe(machine, kProbe, probe_bar(0));
        ModelDriver driver(machine);
        SecondStage table = driver.new_table();
        table.map(Iova(0x1000), kData);
        driver.attach(kProbe, table, kDomain);
        driver.enable_translation();
        EXPECT_EQ(probe.store(Iova(0x1000), 9), DmaResult::ok);
        EXPECT_EQ(machine.load64(kData), 9u);
    }
};

class HostileGuest : public HostileTables, public ::testing::WithParamInterface<unsigned> {
  protected:
    static Rig& fresh(std::unique_ptr<Rig>& rig) {
        rig = std::make_unique<Rig>(MachineOptions{.viommu = Viommu::umbra}, ",listen=on");
        return *rig;
    }
};

INSTANTIATE_TEST_SUITE_P(Seeds, HostileGuest, ::testing::Range(1u, 5u));

TEST_P(HostileGuest, RandomRegisterAccess) {
    std::unique_ptr<Rig> holder;
    Rig& rig = fresh(holder);
    std::mt19937_64 random(GetParam());
    constexpr std::array<std::uint64_t, 6> kAddresses = {
        0, 0x100'0000, 0x110'0000, 0x7f'ffff'f000, ~std::uint64_t{0}, 0xfee0'0000};
    for (int i = 0; i < 4000; i++) {
        const std::uint64_t offset = random() % 4 == 0 ? random() % 0x1000 : random() % 0x100;
        std::uint64_t value = random();
        if (random() % 2 == 0) {
            value = kAddresses.at(random() % kAddresses.size()) | random() % 16;
        }
        const std::uint64_t address = kUnitBase + offset;
        switch (random() % 4) {
            case 0:
                rig.machine.write32(address & ~std::uint64_t{3}, static_cast<std::uint32_t>(value));
                break;
            case 1:
                rig.machine.write64(address & ~std::uint64_t{7}, value);
                break;
            case 2:
                static_cast<void>(rig.machine.read64(address & ~std::uint64_t{7}));
                break;
            default: {
                // Unaligned, and of any size.
                const std::array<std::byte, 16> bytes{std::byte(value), std::byte(value >> 8)};
                rig.machine.write_bytes(address, std::span(bytes).first(1 + value % 16));
                break;
            }
        }
    }
    ASSERT_TRUE(rig.machine.runs());
    expect_healthy(rig.machine);
}

TEST_P(HostileGuest, RandomDescriptors) {
    std::unique_ptr<Rig> holder;
    Rig& rig = fresh(holder);
    std::mt19937_64 random(GetParam());
    rig.driver.enable_translation();
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 16; i++) {
            Descriptor descriptor{.low = random(), .high = random()};
            if (random() % 2 == 0) {
                // Nearly right descriptors get further.
                descriptor.low &= 0x0000'0000'ffff'003f;
                descriptor.high &= 0xffff'f03f;
            }
            rig.driver.enqueue(descriptor);
        }
        rig.driver.ring();
        // Step over the descriptor that stopped the queue.
        rig.driver.write32(driver::kFaultStatus, driver::kQueueError);
        if (random() % 8 == 0) {
            static_cast<void>(rig.driver.command(0, driver::kQueueEnable));
            rig.driver.enable_queue();
        }
    }
    ASSERT_TRUE(rig.machine.runs());
    expect_healthy(rig.machine);
}

TEST_P(HostileGuest, RandomTables) {
    std::unique_ptr<Rig> holder;
    Rig& rig = fresh(holder);
    std::mt19937_64 random(GetParam());
    const Gpa pages = rig.driver.pages().allocate(8);
    SecondStage table = rig.driver.new_table();
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    const auto random_entry = [&] {
        const std::uint64_t noise = random() % 4 == 0 ? random() : 0;
        // Mostly pointers among the eight pages and their root, so that walks go deep and round.
        const Gpa to = random() % 9 == 8 ? table.root() : pages + random() % 8 * kPageSize;
        return to.value() | random() % 4 | (random() % 4 == 0 ? driver::kEntryLeaf : 0) |
               (noise & 0xfff0'0000'0000'0f00);
    };
    for (int round = 0; round < 3; round++) {
        for (std::uint64_t offset = 0; offset < 8 * kPageSize; offset += 8) {
            rig.machine.store64(pages + offset, random_entry());
        }
        for (int i = 0; i < 4; i++) {
            rig.machine.store64(table.root() + random() % 512 * 8, random_entry());
        }
        EXPECT_TRUE(rig.driver.submit(Descriptor::iotlb_domain(kDomain)));
        for (int i = 0; i < 64; i++) {
            static_cast<void>(rig.probe.load(Iova(random() >> 16)));
            static_cast<void>(rig.driver.submit(Descriptor::iotlb_pages(
                kDomain, Iova(random() >> 16 & ~0xfffull), static_cast<unsigned>(random() % 19))));
        }
        static_cast<void>(rig.driver.take_faults());
    }
    ASSERT_TRUE(rig.machine.runs());
    expect_healthy(rig.machine);
}

// Tables of which every entry leads to the same page of the next level: 2^36 leaves in four pages.
// The default budgets hold, and QEMU does other things before they are reached.
TEST_F(HostileTables, ReachTheDefaultBudgetsInSlices) {
    constexpr std::int64_t kMaxMappings = 4194304;
    constexpr std::int64_t kMaxTables = 32768;
    Rig rig(MachineOptions{.viommu = Viommu::umbra}, ",listen=on,vfio-rules=off");
    const Gpa pages = rig.driver.pages().allocate(3);
    SecondStage table = rig.driver.new_table();
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    const auto fill = [&](Gpa page, std::uint64_t value) {
        for (std::uint64_t i = 0; i < kEntriesPerTable; i++) {
            rig.machine.store64(page + i * 8, value);
        }
    };
    const auto shadow = [&](const char* name) {
        return statistics_of(rig.machine).at("shadow").at(name).get<std::int64_t>();
    };
    fill(table.root(), pages.value() | driver::kEntryReadWrite);
    fill(pages, (pages + kPageSize).value() | driver::kEntryReadWrite);
    fill(pages + kPageSize, (pages + 2 * kPageSize).value() | driver::kEntryReadWrite);
    fill(pages + 2 * kPageSize, kData.value() | driver::kEntryReadWrite);
    EXPECT_TRUE(rig.driver.submit(Descriptor::iotlb_domain(kDomain)));
    EXPECT_EQ(shadow("leaves"), kMaxMappings);
    EXPECT_GT(shadow("refused-mappings"), 0);
    EXPECT_LE(shadow("tables"), kMaxTables);

    // Without leaves, the budget of tables is the limit.
    fill(pages + 2 * kPageSize, 0);
    EXPECT_TRUE(rig.driver.submit(Descriptor::iotlb_domain(kDomain)));
    EXPECT_EQ(shadow("leaves"), 0);
    EXPECT_EQ(shadow("tables"), kMaxTables);
    EXPECT_GT(shadow("refused-tables"), 0);

    fill(table.root(), 0);
    EXPECT_TRUE(rig.driver.submit(Descriptor::iotlb_domain(kDomain)));
    EXPECT_EQ(shadow("tables"), 1);
    const Json statistics = statistics_of(rig.machine);
    const Json& hold = statistics.at("shadow").at("lock-hold");
    EXPECT_GT(hold.at("count"), 10);
    RecordProperty("longest_hold_us", std::to_string(hold.at("max").get<std::int64_t>() / 1000));
    std::cout << "[ TIME     ] longest hold of the lock: "
              << hold.at("max").get<std::int64_t>() / 1000 << " us, "
              << hold.at("count").get<std::int64_t>() << " holds\n";
    expect_healthy(rig.machine);
}

}  // namespace
}  // namespace umbra::qtest
