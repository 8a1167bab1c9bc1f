// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/qtest/probe_driver.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <ostream>

#include "plugin/probe/registers.h"

namespace umbra::qtest {

namespace {

// PCI configuration space.
constexpr unsigned kCommand = 0x04;
constexpr unsigned kBar0 = 0x10;
constexpr std::uint16_t kMemoryAndBusMaster = 0x6;
constexpr unsigned kMsiCapability = 0x05;
constexpr std::uint16_t kMsiEnable = 1;

}  // namespace

const char* to_string(DmaResult result) {
    switch (result) {
        case DmaResult::ok:
            return "ok";
        case DmaResult::fault:
            return "fault";
        case DmaResult::mismatch:
            return "mismatch";
        case DmaResult::refused:
            return "refused";
    }
    return "?";
}

void PrintTo(DmaResult result, std::ostream* stream) {
    *stream << to_string(result);
}

void PrintTo(const LiveMapping& mapping, std::ostream* stream) {
    *stream << std::hex << "[iova 0x" << mapping.iova.value() << " size 0x" << mapping.size
            << " to 0x" << mapping.target.value() << " permissions " << mapping.permissions << "]"
            << std::dec;
}

std::vector<LiveMapping> joined(const std::vector<LiveMapping>& mappings) {
    std::vector<LiveMapping> result;
    for (const LiveMapping& mapping : mappings) {
        if (!result.empty() && result.back().iova + result.back().size == mapping.iova &&
            result.back().target + result.back().size == mapping.target &&
            result.back().permissions == mapping.permissions) {
            result.back().size += mapping.size;
        } else {
            result.push_back(mapping);
        }
    }
    return result;
}

ProbeDriver::ProbeDriver(QtestMachine& machine, SourceId function, std::uint64_t bar)
    : machine_(machine), function_(function), bar_(bar) {
    constexpr std::uint32_t kIdentity =
        std::uint32_t{UMBRA_PROBE_DEVICE_ID} << 16 | UMBRA_PROBE_VENDOR_ID;
    if (machine.config_read32(function, 0) != kIdentity) {
        throw TransportError("no umbra-probe at " + std::to_string(function.bus()) + ":" +
                             std::to_string(function.devfn()));
    }
    machine.config_write32(function, kBar0, static_cast<std::uint32_t>(bar));
    machine.config_write16(function, kCommand, kMemoryAndBusMaster);
    msi_capability_ = machine.find_capability(function, kMsiCapability);
    if (get(UMBRA_PROBE_ID) != UMBRA_PROBE_ID_VALUE) {
        throw TransportError("the probe's registers do not answer");
    }
}

DmaResult ProbeDriver::run(std::uint64_t command, Iova iova, std::uint64_t length) {
    set(UMBRA_PROBE_DMA_IOVA, iova.value());
    set(UMBRA_PROBE_DMA_LENGTH, length);
    set(UMBRA_PROBE_DMA_COMMAND, command);
    switch (get(UMBRA_PROBE_DMA_STATUS)) {
        case UMBRA_PROBE_DMA_STATUS_OK:
            return DmaResult::ok;
        case UMBRA_PROBE_DMA_STATUS_FAULT:
            return DmaResult::fault;
        case UMBRA_PROBE_DMA_STATUS_MISMATCH:
            return DmaResult::mismatch;
        case UMBRA_PROBE_DMA_STATUS_REFUSED:
            return DmaResult::refused;
        default:
            throw TransportError("the probe ran no DMA");
    }
}

DmaResult ProbeDriver::read(Iova iova, std::uint64_t length) {
    return run(UMBRA_PROBE_DMA_COMMAND_READ, iova, length);
}

DmaResult ProbeDriver::write(Iova iova, std::uint64_t length) {
    return run(UMBRA_PROBE_DMA_COMMAND_WRITE, iova, length);
}

DmaResult ProbeDriver::fill(Iova iova, std::uint64_t length, std::uint64_t pattern) {
    set(UMBRA_PROBE_DMA_PATTERN, pattern);
    return run(UMBRA_PROBE_DMA_COMMAND_FILL, iova, length);
}

DmaResult ProbeDriver::check(Iova iova, std::uint64_t length, std::uint64_t pattern) {
    set(UMBRA_PROBE_DMA_PATTERN, pattern);
    return run(UMBRA_PROBE_DMA_COMMAND_CHECK, iova, length);
}

std::optional<std::uint64_t> ProbeDriver::load(Iova iova) {
    if (read(iova, sizeof(std::uint64_t)) != DmaResult::ok) {
        return std::nullopt;
    }
    return get(UMBRA_PROBE_WINDOW);
}

DmaResult ProbeDriver::store(Iova iova, std::uint64_t value) {
    set(UMBRA_PROBE_WINDOW, value);
    return write(iova, sizeof(value));
}

DmaResult ProbeDriver::send_message(std::uint64_t address, std::uint32_t data) {
    set(UMBRA_PROBE_WINDOW, data);
    return write(Iova(address), sizeof(data));
}

void ProbeDriver::configure_msi(std::uint64_t address, std::uint16_t data) {
    if (msi_capability_ == 0) {
        throw TransportError("the probe has no MSI capability");
    }
    machine_.config_write32(function_, msi_capability_ + 4, static_cast<std::uint32_t>(address));
    machine_.config_write32(function_, msi_capability_ + 8,
                            static_cast<std::uint32_t>(address >> 32));
    machine_.config_write16(function_, msi_capability_ + 12, data);
    machine_.config_write16(function_, msi_capability_ + 2, kMsiEnable);
}

void ProbeDriver::trigger_msi(unsigned vector) {
    set(UMBRA_PROBE_MSI_TRIGGER, vector);
}

void ProbeDriver::listen(bool on, bool rules) {
    const unsigned bits = (on ? unsigned{UMBRA_PROBE_LISTEN_ON} : 0u) |
                          (rules ? unsigned{UMBRA_PROBE_LISTEN_RULES} : 0u);
    set(UMBRA_PROBE_LISTEN, bits);
}

void ProbeDriver::clear_counters() {
    set(UMBRA_PROBE_LISTEN_CLEAR, 1);
}

std::vector<LiveMapping> ProbeDriver::live_mappings() {
    constexpr std::size_t kRecords = UMBRA_PROBE_WINDOW_SIZE / sizeof(UmbraProbeMapping);
    std::vector<LiveMapping> mappings;
    std::uint64_t cursor = 0;
    for (;;) {
        set(UMBRA_PROBE_LIVE_READ, cursor);
        const std::uint64_t count = get(UMBRA_PROBE_LIVE_READ_COUNT);
        std::array<UmbraProbeMapping, kRecords> records{};
        if (count > kRecords) {
            throw TransportError("the probe returned more mappings than fit");
        }
        if (count > 0) {
            machine_.read_bytes(bar_ + UMBRA_PROBE_WINDOW,
                                std::as_writable_bytes(std::span(records).first(count)));
        }
        for (const UmbraProbeMapping& record : std::span(records).first(count)) {
            mappings.push_back({.iova = Iova(record.iova),
                                .size = record.last - record.iova + 1,
                                .target = Gpa(record.target),
                                .permissions = static_cast<unsigned>(record.flags)});
            cursor = record.last + 1;
        }
        if (count < kRecords || cursor == 0) {
            return mappings;
        }
    }
}

DoorbellTimes ProbeDriver::ring_doorbell(std::uint64_t address, unsigned width, std::uint64_t value,
                                         std::uint64_t count, std::uint64_t step,
                                         std::uint64_t wrap) {
    set(UMBRA_PROBE_DOORBELL_ADDRESS, address);
    set(UMBRA_PROBE_DOORBELL_WIDTH, width);
    set(UMBRA_PROBE_DOORBELL_VALUE, value);
    set(UMBRA_PROBE_DOORBELL_STEP, step);
    set(UMBRA_PROBE_DOORBELL_WRAP, wrap);
    set(UMBRA_PROBE_DOORBELL_RING, count);
    DoorbellTimes times;
    times.writes = get(UMBRA_PROBE_DOORBELL_DONE);
    if (times.writes != count || get(UMBRA_PROBE_DOORBELL_FAILED) != 0) {
        throw TransportError("the probe's doorbell made " + std::to_string(times.writes) +
                             " writes of " + std::to_string(count));
    }
    times.total_ns = get(UMBRA_PROBE_DOORBELL_NS);
    times.min_ns = get(UMBRA_PROBE_DOORBELL_NS_MIN);
    times.max_ns = get(UMBRA_PROBE_DOORBELL_NS_MAX);
    times.start_ns = get(UMBRA_PROBE_DOORBELL_START);
    times.samples.resize(
        std::min<std::uint64_t>(count, UMBRA_PROBE_WINDOW_SIZE / sizeof(std::uint64_t)));
    machine_.read_bytes(bar_ + UMBRA_PROBE_WINDOW,
                        std::as_writable_bytes(std::span(times.samples)));
    return times;
}

}  // namespace umbra::qtest
