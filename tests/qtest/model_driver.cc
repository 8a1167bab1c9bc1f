// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/qtest/model_driver.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <thread>

namespace umbra::qtest {

namespace {

constexpr Gpa kTablesBase{16u << 20};
constexpr std::chrono::seconds kCompletionLimit{60};
constexpr std::chrono::seconds kCommandLimit{10};

Gpa tables_last(const QtestMachine& machine) {
    const std::uint64_t quarter = (std::uint64_t{machine.options().memory_mib} << 20) / 4;
    return Gpa(std::max<std::uint64_t>(quarter, 48u << 20) - 1);
}

constexpr std::uint64_t did(std::uint16_t domain) {
    return std::uint64_t{domain} << 16;
}

// Command bits that are not one-shot and so must be written again with every command.
constexpr std::uint32_t kLevelBits = vtd::kTranslationEnable | vtd::kQueueEnable |
                                     vtd::kInterruptRemappingEnable | vtd::kCompatibilityInterrupts;

}  // namespace

Descriptor Descriptor::context_global() {
    return {.low = 0x1 | 1u << 4};
}
Descriptor Descriptor::context_domain(std::uint16_t domain) {
    return {.low = 0x1 | 2u << 4 | did(domain)};
}
Descriptor Descriptor::context_device(std::uint16_t domain, SourceId source, unsigned mask) {
    return {.low = 0x1 | 3u << 4 | did(domain) | std::uint64_t{source.value()} << 32 |
                   std::uint64_t{mask} << 48};
}
Descriptor Descriptor::iotlb_global() {
    return {.low = 0x2 | 1u << 4};
}
Descriptor Descriptor::iotlb_domain(std::uint16_t domain) {
    return {.low = 0x2 | 2u << 4 | did(domain)};
}
Descriptor Descriptor::iotlb_pages(std::uint16_t domain, Iova address, unsigned address_mask,
                                   bool leaf_only) {
    return {.low = 0x2 | 3u << 4 | did(domain),
            .high = address.value() | (leaf_only ? 1u << 6 : 0u) | address_mask};
}
Descriptor Descriptor::interrupt_entries_global() {
    return {.low = 0x4};
}
Descriptor Descriptor::interrupt_entries(std::uint16_t first, unsigned index_mask) {
    return {.low = 0x4 | 1u << 4 | std::uint64_t{index_mask} << 27 | std::uint64_t{first} << 32};
}
Descriptor Descriptor::wait_status(Gpa address, std::uint32_t data, bool fence) {
    return {.low = 0x5 | 1u << 5 | (fence ? 1u << 6 : 0u) | std::uint64_t{data} << 32,
            .high = address.value()};
}
Descriptor Descriptor::wait_interrupt() {
    return {.low = 0x5 | 1u << 4};
}

ModelDriver::ModelDriver(QtestMachine& machine, unsigned queue_order)
    : machine_(machine),
      pages_(machine, kTablesBase, tables_last(machine)),
      contexts_(machine, pages_),
      queue_(pages_.allocate(std::size_t{1} << queue_order, kPageSize << queue_order)),
      status_(pages_.allocate()),
      queue_order_(queue_order),
      queue_entries_(256u << queue_order),
      capability_(read64(vtd::kCapability)),
      extended_capability_(read64(vtd::kExtendedCapability)) {}

bool ModelDriver::command(std::uint32_t set, std::uint32_t clear) {
    const std::uint32_t status = read32(vtd::kGlobalStatus);
    write32(vtd::kGlobalCommand, (status & kLevelBits & ~clear) | set);
    // The status follows when the command has taken effect everywhere, which may take a while.
    const auto deadline = std::chrono::steady_clock::now() + kCommandLimit;
    for (;;) {
        const std::uint32_t after = read32(vtd::kGlobalStatus);
        if ((after & set) == set && (after & clear) == 0) {
            return true;
        }
        if (std::chrono::steady_clock::now() >= deadline) {
            return false;
        }
        std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
}

void ModelDriver::enable_queue() {
    write64(vtd::kQueueTail, 0);
    write64(vtd::kQueueAddress, queue_.value() | queue_order_);
    tail_ = 0;
    if (!command(vtd::kQueueEnable)) {
        throw TransportError("the unit did not enable its invalidation queue");
    }
}

void ModelDriver::enable_translation() {
    write64(vtd::kRootTableAddress, contexts_.root().value());
    if (!command(vtd::kSetRootTable)) {
        throw TransportError("the unit did not latch the root table");
    }
    if ((read32(vtd::kGlobalStatus) & vtd::kQueueEnable) == 0) {
        enable_queue();
    }
    const std::array<Descriptor, 2> all = {Descriptor::context_global(),
                                           Descriptor::iotlb_global()};
    if (!submit(all) || !command(vtd::kTranslationEnable)) {
        throw TransportError("the unit did not enable translation");
    }
}

void ModelDriver::disable_translation() {
    if (!command(0, vtd::kTranslationEnable)) {
        throw TransportError("the unit did not disable translation");
    }
}

void ModelDriver::enable_interrupt_remapping(const InterruptTable& table, bool extended_mode,
                                             bool compatibility_format) {
    if ((read32(vtd::kGlobalStatus) & vtd::kQueueEnable) == 0) {
        enable_queue();
    }
    write64(vtd::kInterruptTableAddress,
            table.address().value() | (extended_mode ? 1u << 11 : 0u) | table.size());
    if (!command(vtd::kSetInterruptTable) || !submit(Descriptor::interrupt_entries_global()) ||
        !command(compatibility_format ? vtd::kCompatibilityInterrupts : 0,
                 compatibility_format ? 0 : vtd::kCompatibilityInterrupts) ||
        !command(vtd::kInterruptRemappingEnable)) {
        throw TransportError("the unit did not enable interrupt remapping");
    }
}

void ModelDriver::attach(SourceId function, const SecondStage& table, std::uint16_t domain) {
    contexts_.set(function, {.table = table.root(), .levels = table.levels(), .domain = domain});
}

void ModelDriver::enqueue(const Descriptor& descriptor) {
    const Gpa slot = queue_ + std::uint64_t{tail_} * 16;
    machine_.store64(slot + 8, descriptor.high);
    machine_.store64(slot, descriptor.low);
    tail_ = (tail_ + 1) % queue_entries_;
}

void ModelDriver::ring() {
    write64(vtd::kQueueTail, std::uint64_t{tail_} * 16);
}

bool ModelDriver::submit(std::span<const Descriptor> descriptors) {
    if (descriptors.size() + 2 > queue_entries_) {
        throw std::length_error("more descriptors than the invalidation queue holds");
    }
    for (const Descriptor& descriptor : descriptors) {
        enqueue(descriptor);
    }
    const std::uint32_t expected = ++sequence_;
    enqueue(Descriptor::wait_status(status_, expected));
    ring();
    const auto deadline = std::chrono::steady_clock::now() + kCompletionLimit;
    for (;;) {
        if (static_cast<std::uint32_t>(machine_.load64(status_)) == expected) {
            return true;
        }
        if ((read32(vtd::kFaultStatus) & vtd::kQueueError) != 0) {
            return false;
        }
        if (std::chrono::steady_clock::now() >= deadline) {
            throw TransportError("the invalidation queue neither completed nor stopped");
        }
        std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
}

std::vector<Fault> ModelDriver::take_faults() {
    const std::uint32_t base = vtd::fault_record_offset(capability_);
    const unsigned count = vtd::fault_record_count(capability_);
    const unsigned first = read32(vtd::kFaultStatus) >> 8 & 0xff;
    std::vector<Fault> faults;
    for (unsigned i = 0; i < count; i++) {
        const std::uint32_t record = base + (first + i) % count * 16;
        const std::uint64_t high = read64(record + 8);
        if (high >> 63 == 0) {
            break;
        }
        Fault fault;
        fault.source = SourceId(static_cast<std::uint16_t>(high));
        fault.reason = static_cast<vtd::Reason>(high >> 32 & 0xff);
        fault.read = (high >> 62 & 1) != 0;
        fault.address = Iova(read64(record));
        faults.push_back(fault);
        write32(record + 12, 1u << 31);
    }
    write32(vtd::kFaultStatus, vtd::kFaultOverflow);
    return faults;
}

}  // namespace umbra::qtest
