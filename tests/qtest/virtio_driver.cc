// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/qtest/virtio_driver.h"

#include <array>
#include <cstddef>

namespace umbra::qtest {
namespace {

// Of the common configuration structure.
enum Register : std::uint32_t {
    kFeatureSelect = 8,
    kFeatures = 12,
    kStatus = 20,
    kQueueSelect = 22,
    kQueueLength = 24,
    kQueueEnable = 28,
    kQueueNotifyOffset = 30,
    kQueueDescriptors = 32,
    kQueueAvailable = 40,
    kQueueUsed = 48,
};

enum Status : std::uint8_t {
    kAcknowledge = 1,
    kDriver = 2,
    kDriverOk = 4,
    kFeaturesOk = 8,
};

constexpr unsigned kVendorCapability = 0x09;
constexpr unsigned kCommonConfiguration = 1;
constexpr unsigned kNotification = 2;

}  // namespace

VirtioDriver::VirtioDriver(QtestMachine& machine, SourceId function, std::uint64_t bar)
    : machine_(machine), function_(function) {
    constexpr unsigned kBar4 = 0x20;
    machine.config_write32(function, kBar4, static_cast<std::uint32_t>(bar));
    machine.config_write32(function, kBar4 + 4, 0);
    machine.config_write16(function, 0x04, 0x6);
    find_registers(bar);
}

void VirtioDriver::start(std::uint64_t features, const VirtioRings& rings) {
    write8(kStatus, 0);
    write8(kStatus, kAcknowledge | kDriver);
    machine_.write32(common_ + kFeatureSelect, 0);
    machine_.write32(common_ + kFeatures, static_cast<std::uint32_t>(features));
    machine_.write32(common_ + kFeatureSelect, 1);
    machine_.write32(common_ + kFeatures, static_cast<std::uint32_t>(features >> 32));
    write8(kStatus, kAcknowledge | kDriver | kFeaturesOk);
    write16(kQueueSelect, 0);
    write16(kQueueLength, kQueueSize);
    write64(kQueueDescriptors, rings.descriptors);
    write64(kQueueAvailable, rings.available);
    write64(kQueueUsed, rings.used);
    write16(kQueueEnable, 1);
    std::array<std::byte, 2> offset{};
    machine_.read_bytes(common_ + kQueueNotifyOffset, offset);
    notify_ += std::uint64_t{std::to_integer<unsigned>(offset[0])} * notify_multiplier_;
    write8(kStatus, kAcknowledge | kDriver | kFeaturesOk | kDriverOk);
}

void VirtioDriver::offer(Gpa available) {
    // Flags, index and the ring's four entries, all of them the chain that begins at 0.
    ++offered_;
    machine_.store64(available + 4, 0);
    machine_.store64(available, std::uint64_t{offered_} << 16);
    machine_.write32(notify_, 0);
}

void VirtioDriver::find_registers(std::uint64_t bar) {
    unsigned offset = machine_.config_read32(function_, 0x34) & 0xfc;
    while (offset != 0) {
        const std::uint32_t header = machine_.config_read32(function_, offset);
        if ((header & 0xff) == kVendorCapability) {
            const std::uint64_t at = bar + machine_.config_read32(function_, offset + 8);
            if (header >> 24 == kCommonConfiguration) {
                common_ = at;
            } else if (header >> 24 == kNotification) {
                notify_ = at;
                notify_multiplier_ = machine_.config_read32(function_, offset + 16);
            }
        }
        offset = header >> 8 & 0xfc;
    }
    if (common_ == 0 || notify_ == 0) {
        throw TransportError("no virtio device at its place");
    }
}

void VirtioDriver::write8(std::uint32_t offset, unsigned value) {
    machine_.write_bytes(common_ + offset, std::array{std::byte(value)});
}

void VirtioDriver::write16(std::uint32_t offset, std::uint16_t value) {
    machine_.write_bytes(common_ + offset, std::array{std::byte(value), std::byte(value >> 8)});
}

void VirtioDriver::write64(std::uint32_t offset, std::uint64_t value) {
    machine_.write32(common_ + offset, static_cast<std::uint32_t>(value));
    machine_.write32(common_ + offset + 4, static_cast<std::uint32_t>(value >> 32));
}

}  // namespace umbra::qtest
