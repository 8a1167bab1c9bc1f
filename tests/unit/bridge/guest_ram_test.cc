// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/bridge/guest_ram.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

namespace umbra::bridge {
namespace {

constexpr std::uint64_t kLow = 0x100000;
constexpr std::uint64_t kHigh = 0x100000000;

// Two neighbouring pieces in low memory (host memory apart from each other), one ROM, and one piece
// above 4 GiB; given out of order.
class GuestRamTest : public ::testing::Test {
  protected:
    GuestRamTest() : ram_(&GuestRamTest::take_write, this) { replace_map(); }

    UmbraRamRange range(std::uint64_t address, std::vector<std::uint8_t>& bytes, bool writable) {
        return {
            .address = address, .size = bytes.size(), .host = bytes.data(), .writable = writable};
    }

    void replace_map() {
        const std::array ranges = {range(kHigh, high_, true), range(kLow + 0x2000, second_, true),
                                   range(0xfffff000, rom_, false), range(kLow, first_, true)};
        const std::unique_ptr<UmbraRamMap> previous(
            ram_.swap(std::make_unique<UmbraRamMap>(ranges).release()));
    }

    static shadow::RamRun run(std::uint64_t first, std::uint64_t bytes,
                              std::vector<std::uint8_t>& memory, bool read_only) {
        return {.first = Gpa(first),
                .bytes = bytes,
                .host = HostAddress(reinterpret_cast<std::uintptr_t>(memory.data())),
                .read_only = read_only};
    }

    static bool take_write(void* opaque, std::uint64_t address, const void* /*from*/,
                           std::size_t size) {
        auto* self = static_cast<GuestRamTest*>(opaque);
        self->writes_.push_back({address, size});
        return self->write_succeeds_;
    }

    std::vector<std::uint8_t> first_ = std::vector<std::uint8_t>(0x2000, 0x11);
    std::vector<std::uint8_t> second_ = std::vector<std::uint8_t>(0x2800, 0x22);
    std::vector<std::uint8_t> rom_ = std::vector<std::uint8_t>(0x1000, 0x33);
    std::vector<std::uint8_t> high_ = std::vector<std::uint8_t>(0x1000, 0x44);
    GuestRam ram_;
    struct Write {
        std::uint64_t address;
        std::size_t size;
    };
    std::vector<Write> writes_;
    bool write_succeeds_ = true;
};

TEST_F(GuestRamTest, ReadsAcrossPieces) {
    std::array<std::byte, 16> bytes{};
    ASSERT_TRUE(ram_.read(Gpa(kLow + 0x2000 - 8), bytes));
    EXPECT_EQ(bytes[7], std::byte{0x11});
    EXPECT_EQ(bytes[8], std::byte{0x22});
    ASSERT_TRUE(ram_.read(Gpa(kHigh + 0xff0), bytes));
    EXPECT_EQ(bytes[15], std::byte{0x44});
}

TEST_F(GuestRamTest, RefusesReadsThatLeaveRam) {
    std::array<std::byte, 16> bytes{};
    EXPECT_FALSE(ram_.read(Gpa(0), bytes));
    EXPECT_FALSE(ram_.read(Gpa(kLow - 1), bytes));
    EXPECT_FALSE(ram_.read(Gpa(kLow + 0x4800 - 15), bytes));
    EXPECT_FALSE(ram_.read(Gpa(kHigh + 0x1000), bytes));
    // Wraps round the end of the address space.
    EXPECT_FALSE(ram_.read(Gpa(~std::uint64_t{0} - 3), bytes));
}

TEST_F(GuestRamTest, FindsEveryAddressWhateverCameBefore) {
    const std::array<std::uint64_t, 6> addresses = {kLow,  kLow + 0x1fff, kLow + 0x2000,
                                                    kHigh, kHigh + 0xfff, 0xfffff800};
    const std::array<std::uint8_t, 6> expected = {0x11, 0x11, 0x22, 0x44, 0x44, 0x33};
    for (std::size_t before = 0; before < addresses.size(); ++before) {
        for (std::size_t i = 0; i < addresses.size(); ++i) {
            std::array<std::byte, 1> byte{};
            ASSERT_TRUE(ram_.read(Gpa(addresses[before]), byte));
            ASSERT_TRUE(ram_.read(Gpa(addresses[i]), byte));
            EXPECT_EQ(byte[0], std::byte{expected[i]});
        }
    }
}

TEST_F(GuestRamTest, GivesPointersToWholePagesOnly) {
    EXPECT_EQ(ram_.page_pointer(Gpa(kLow + 0x1000)),
              reinterpret_cast<const std::byte*>(first_.data() + 0x1000));
    EXPECT_EQ(ram_.page_pointer(Gpa(kLow + 0x3000)),
              reinterpret_cast<const std::byte*>(second_.data() + 0x1000));
    EXPECT_EQ(ram_.page_pointer(Gpa(kLow + 0x4000)), nullptr) << "half a page of RAM";
    EXPECT_EQ(ram_.page_pointer(Gpa(kLow + 0x5000)), nullptr);
    EXPECT_EQ(ram_.page_pointer(Gpa(0)), nullptr);
}

TEST_F(GuestRamTest, WritesByWayOfThePlatform) {
    const std::array<std::byte, 8> bytes{};
    EXPECT_TRUE(ram_.write(Gpa(kLow + 0x1ffc), bytes));
    ASSERT_EQ(writes_.size(), 1U);
    EXPECT_EQ(writes_[0].address, kLow + 0x1ffc);
    EXPECT_EQ(writes_[0].size, 8U);
    EXPECT_EQ(first_[0x1ffc], 0x11) << "must not be written behind the platform's back";

    write_succeeds_ = false;
    EXPECT_FALSE(ram_.write(Gpa(kLow), bytes));
}

TEST_F(GuestRamTest, WritesNothingUnlessAllOfItIsWritableRam) {
    const std::array<std::byte, 8> bytes{};
    EXPECT_FALSE(ram_.write(Gpa(0xfffff000), bytes)) << "ROM";
    EXPECT_FALSE(ram_.write(Gpa(0xfffffffc), bytes)) << "ROM, then RAM";
    EXPECT_FALSE(ram_.write(Gpa(kLow + 0x47fc), bytes)) << "RAM, then nothing";
    EXPECT_FALSE(ram_.write(Gpa(0), bytes));
    EXPECT_TRUE(writes_.empty());
}

// second_ ends in half a page.
TEST_F(GuestRamTest, ListsWholePagesForTheShadowInOrder) {
    std::vector<shadow::RamRun> runs(1);
    ram_.list(runs);
    ASSERT_EQ(runs.size(), 4u);
    EXPECT_EQ(runs[0], run(kLow, 0x2000, first_, false));
    EXPECT_EQ(runs[1], run(kLow + 0x2000, 0x2000, second_, false));
    EXPECT_EQ(runs[2], run(0xfffff000, 0x1000, rom_, true));
    EXPECT_EQ(runs[3], run(kHigh, 0x1000, high_, false));
}

TEST_F(GuestRamTest, AChangedMapChangesTheGeneration) {
    const std::uint64_t before = ram_.generation();
    replace_map();
    EXPECT_NE(ram_.generation(), before);
}

TEST(GuestRamWithoutMap, HoldsNoRam) {
    GuestRam ram([](void*, std::uint64_t, const void*, std::size_t) { return true; }, nullptr);
    std::array<std::byte, 4> bytes{};
    EXPECT_FALSE(ram.read(Gpa(0), bytes));
    EXPECT_FALSE(ram.write(Gpa(0), bytes));
    EXPECT_EQ(ram.page_pointer(Gpa(0)), nullptr);
}

// Readers run while the map is swapped back and forth; each read must come wholly from one of the
// two maps. (Maps are kept until the end, as a grace period would keep them.)
TEST(GuestRamThreads, ReadsSeeOneMapOrTheOther) {
    GuestRam ram([](void*, std::uint64_t, const void*, std::size_t) { return true; }, nullptr);
    std::vector<std::uint8_t> ones(0x1000, 1);
    std::vector<std::uint8_t> twos(0x1000, 2);
    std::vector<std::unique_ptr<UmbraRamMap>> retired;
    const auto use = [&](std::vector<std::uint8_t>& bytes) {
        const std::array ranges = {UmbraRamRange{
            .address = kLow, .size = bytes.size(), .host = bytes.data(), .writable = true}};
        if (UmbraRamMap* previous = ram.swap(std::make_unique<UmbraRamMap>(ranges).release())) {
            retired.emplace_back(previous);
        }
    };
    use(ones);

    std::atomic<bool> stop{false};
    std::atomic<unsigned> mixed{0};
    std::thread reader([&] {
        while (!stop.load()) {
            std::array<std::byte, 64> bytes{};
            if (!ram.read(Gpa(kLow + 0x800), bytes)) {
                ++mixed;
            }
            for (const std::byte byte : bytes) {
                mixed += byte == bytes[0] ? 0 : 1;
            }
        }
    });
    for (int i = 0; i < 1000; ++i) {
        use(i % 2 == 0 ? twos : ones);
    }
    stop = true;
    reader.join();
    EXPECT_EQ(mixed.load(), 0U);
}

}  // namespace
}  // namespace umbra::bridge
