// SPDX-License-Identifier: GPL-2.0-or-later
//
// on-map-error=stop, as the C side drives it: what the guest waits for completes when the machine
// has stopped, and not when it has been asked to.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "plugin/bridge/bridge.h"

namespace umbra::testing {
namespace {

constexpr std::uint64_t kPage = 0x1000;
// Guest memory: the tables of one device, 00:00.0, and the queue.
constexpr std::uint64_t kRoot = 1 * kPage;
constexpr std::uint64_t kContexts = 2 * kPage;
constexpr std::uint64_t kTop = 3 * kPage;  // and the levels below it in the pages after it
constexpr std::uint64_t kLeaves = 5 * kPage;
constexpr std::uint64_t kQueue = 8 * kPage;
constexpr std::uint64_t kStatus = 9 * kPage;
constexpr std::uint64_t kData = 16 * kPage;
constexpr std::uint64_t kMemory = 32 * kPage;
constexpr std::uint64_t kReadWrite = 3;

class StopOnMapError : public ::testing::Test {
  protected:
    StopOnMapError() : memory_(kMemory) {
        const UmbraUnitProperties properties = {.address_width = 39,
                                                .host_address_width = 40,
                                                .caching_mode = true,
                                                .interrupt_remapping = false,
                                                .extended_interrupt_mode = false,
                                                .pass_through = true,
                                                .device_iotlb = false,
                                                .snoop_control = false};
        const UmbraShadowOptions options = {.coalesce = true,
                                            .stop_on_map_error = true,
                                            .max_mappings = 1000,
                                            .max_tables = 1000,
                                            .slice_us = 0};
        UmbraPlatform platform = {};
        platform.opaque = this;
        platform.write_memory = [](void* opaque, uint64_t address, const void* from, size_t size) {
            std::memcpy(self(opaque).memory_.data() + address, from, size);
            return true;
        };
        platform.send_message = [](void*, uint64_t, uint32_t) {};
        platform.translation_changed = [](void*) {};
        platform.contexts_changed = [](void*, const UmbraScope*) {};
        platform.iotlb_changed = [](void*, const UmbraScope*) {};
        platform.device_tlb_changed = [](void*, uint16_t, uint64_t, uint64_t) {};
        platform.interrupt_remapping_changed = [](void*) {};
        platform.interrupt_entries_changed = [](void*) {};
        platform.report = [](void*, bool, const char*) {};
        platform.stop_machine = [](void* opaque) {
            ++self(opaque).stops_;
            return self(opaque).runs_;
        };
        unit_ = umbra_unit_new(&properties, &options, &platform);
        const UmbraRamRange ram = {0, kMemory, memory_.data(), true};
        umbra_ram_map_free(umbra_unit_swap_ram_map(unit_, umbra_ram_map_new(&ram, 1)));
        const UmbraHostPort port = {
            .opaque = this,
            .source = [](void*) -> uint16_t { return 0; },
            .map = [](void* opaque, const UmbraMapping*, size_t count, int* error) -> size_t {
                if (self(opaque).refuses_) {
                    *error = ENOMEM;
                    return 0;
                }
                self(opaque).mapped_ += count;
                return count;
            },
            .unmap = [](void*, uint64_t, uint64_t) { return 0; },
            .set_mode = [](void*, UmbraDmaMode) {},
        };
        device_ = umbra_shadow_add(unit_, &port);
        translate();
    }
    ~StopOnMapError() override {
        umbra_shadow_remove(unit_, device_);
        umbra_unit_free(unit_);
    }
    StopOnMapError(const StopOnMapError&) = delete;
    StopOnMapError& operator=(const StopOnMapError&) = delete;

    static StopOnMapError& self(void* opaque) { return *static_cast<StopOnMapError*>(opaque); }

    void store(std::uint64_t address, std::uint64_t value) {
        std::memcpy(memory_.data() + address, &value, sizeof(value));
    }
    [[nodiscard]] std::uint32_t status() const {
        std::uint32_t value = 0;
        std::memcpy(&value, memory_.data() + kStatus, sizeof(value));
        return value;
    }

    // Three levels, domain 1, queue and translation on.
    void translate() {
        store(kRoot, kContexts | 1);
        store(kContexts, kTop | 1);
        store(kContexts + 8, 1u << 8 | 1);
        store(kTop, (kTop + kPage) | kReadWrite);
        store(kTop + kPage, kLeaves | kReadWrite);
        umbra_unit_mmio_write(unit_, 0x20, kRoot, 8);
        umbra_unit_mmio_write(unit_, 0x18, 1u << 30, 4);
        umbra_unit_mmio_write(unit_, 0x90, kQueue, 8);
        umbra_unit_mmio_write(unit_, 0x18, 1u << 26, 4);
        umbra_unit_mmio_write(unit_, 0x18, 1u << 26 | 1u << 31, 4);
    }
    // Maps the page, and waits for its invalidation with `status`.
    void map(unsigned page, std::uint32_t status) {
        store(kLeaves + page * 8, (kData + page * 2 * kPage) | kReadWrite);
        store(kQueue + tail_, 0x2 | 3u << 4 | 1u << 16);
        store(kQueue + tail_ + 8, page * kPage);
        store(kQueue + tail_ + 16, 0x5 | 1u << 5 | std::uint64_t{status} << 32);
        store(kQueue + tail_ + 24, kStatus);
        tail_ += 32;
        umbra_unit_mmio_write(unit_, 0x88, tail_, 8);
    }

    std::vector<std::uint8_t> memory_;
    UmbraUnit* unit_ = nullptr;
    UmbraShadowDevice* device_ = nullptr;
    std::uint64_t tail_ = 0;
    bool refuses_ = false;
    bool runs_ = true;
    std::size_t mapped_ = 0;
    unsigned stops_ = 0;
};

TEST_F(StopOnMapError, WaitCompletesWhenTheMachineHasStopped) {
    map(0, 1);
    EXPECT_EQ(status(), 1u);
    refuses_ = true;
    map(1, 2);
    EXPECT_EQ(stops_, 1u);
    EXPECT_EQ(status(), 1u);
    EXPECT_TRUE(umbra_unit_machine_stopping(unit_));
    // However often it is asked to go on, and whatever the guest does meanwhile.
    EXPECT_TRUE(umbra_unit_work(unit_));
    map(2, 3);
    EXPECT_TRUE(umbra_unit_work(unit_));
    EXPECT_EQ(status(), 1u);

    runs_ = false;
    umbra_unit_machine_stopped(unit_);
    EXPECT_FALSE(umbra_unit_work(unit_));
    EXPECT_EQ(status(), 3u);
    EXPECT_EQ(stops_, 1u);
}

TEST_F(StopOnMapError, EachTimeItGoesOnItMayStopAgain) {
    refuses_ = true;
    map(0, 1);
    umbra_unit_machine_stopped(unit_);
    static_cast<void>(umbra_unit_work(unit_));
    umbra_unit_machine_goes_on(unit_);
    EXPECT_EQ(stops_, 2u);
    EXPECT_TRUE(umbra_unit_machine_stopping(unit_));
    umbra_unit_machine_stopped(unit_);
    refuses_ = false;
    umbra_unit_machine_goes_on(unit_);
    EXPECT_EQ(stops_, 2u);
    EXPECT_EQ(mapped_, 1u);
    EXPECT_FALSE(umbra_unit_has_work(unit_));
}

TEST_F(StopOnMapError, MachineThatStandsStillWaitsForNoStop) {
    refuses_ = true;
    runs_ = false;
    map(0, 1);
    EXPECT_EQ(status(), 1u);
    EXPECT_FALSE(umbra_unit_machine_stopping(unit_));
}

TEST_F(StopOnMapError, CommandByRegisterCompletesWhenTheMachineHasStopped) {
    umbra_unit_mmio_write(unit_, 0x18, 1u << 26, 4);
    store(kLeaves, kData | kReadWrite);
    refuses_ = true;
    umbra_unit_mmio_write(unit_, 0x18, 1u << 26 | 1u << 31, 4);
    EXPECT_EQ(umbra_unit_mmio_read(unit_, 0x1c, 4) >> 31, 0u);
    umbra_unit_machine_stopped(unit_);
    EXPECT_FALSE(umbra_unit_work(unit_));
    EXPECT_EQ(umbra_unit_mmio_read(unit_, 0x1c, 4) >> 31, 1u);
}

TEST_F(StopOnMapError, ResetDoesNotWaitForIt) {
    refuses_ = true;
    map(0, 1);
    ASSERT_TRUE(umbra_unit_machine_stopping(unit_));
    umbra_unit_reset(unit_);
    EXPECT_FALSE(umbra_unit_machine_stopping(unit_));
    EXPECT_FALSE(umbra_unit_has_work(unit_));
}

}  // namespace
}  // namespace umbra::testing
