// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/qtest/model_driver.h"

#include <algorithm>
#include <stdexcept>

#include "tests/qtest/wait.h"

namespace umbra::qtest {

namespace {

constexpr Gpa kTablesBase{16u << 20};
constexpr std::chrono::seconds kCommandLimit{10};

Gpa tables_last(const QtestMachine& machine) {
    const std::uint64_t quarter = (std::uint64_t{machine.options().memory_mib} << 20) / 4;
    return Gpa(std::max<std::uint64_t>(quarter, 48u << 20) - 1);
}

// Command bits that are not one-shot and so must be written again with every command.
constexpr std::uint32_t kLevelBits = driver::kTranslationEnable | driver::kQueueEnable |
                                     driver::kInterruptRemappingEnable |
                                     driver::kCompatibilityInterrupts;

}  // namespace

ModelDriver::ModelDriver(QtestMachine& machine, unsigned queue_order)
    : machine_(machine),
      pages_(machine, kTablesBase, tables_last(machine)),
      contexts_(machine, pages_),
      queue_(pages_.allocate(std::size_t{1} << queue_order, kPageSize << queue_order)),
      status_(pages_.allocate()),
      queue_order_(queue_order),
      queue_entries_(256u << queue_order),
      capability_(read64(driver::kCapability)),
      extended_capability_(read64(driver::kExtendedCapability)) {}

bool ModelDriver::command(std::uint32_t set, std::uint32_t clear) {
    const std::uint32_t status = read32(driver::kGlobalStatus);
    write32(driver::kGlobalCommand, (status & kLevelBits & ~clear) | set);
    // The status follows once the command has taken effect everywhere.
    return comes_true(
        [&] {
            const std::uint32_t after = read32(driver::kGlobalStatus);
            return (after & set) == set && (after & clear) == 0;
        },
        kCommandLimit);
}

void ModelDriver::enable_queue() {
    write64(driver::kQueueTail, 0);
    write64(driver::kQueueAddress, queue_.value() | queue_order_);
    tail_ = 0;
    if (!command(driver::kQueueEnable)) {
        throw TransportError("the unit did not enable its invalidation queue");
    }
}

void ModelDriver::enable_translation() {
    write64(driver::kRootTableAddress, contexts_.root().value());
    if (!command(driver::kSetRootTable)) {
        throw TransportError("the unit did not latch the root table");
    }
    if ((read32(driver::kGlobalStatus) & driver::kQueueEnable) == 0) {
        enable_queue();
    }
    const std::array<Descriptor, 2> all = {Descriptor::context_global(),
                                           Descriptor::iotlb_global()};
    if (!submit(all) || !command(driver::kTranslationEnable)) {
        throw TransportError("the unit did not enable translation");
    }
}

void ModelDriver::disable_translation() {
    if (!command(0, driver::kTranslationEnable)) {
        throw TransportError("the unit did not disable translation");
    }
}

void ModelDriver::enable_interrupt_remapping(const InterruptTable& table, bool extended_mode,
                                             bool compatibility_format) {
    if ((read32(driver::kGlobalStatus) & driver::kQueueEnable) == 0) {
        enable_queue();
    }
    write64(driver::kInterruptTableAddress,
            table.address().value() | (extended_mode ? driver::kInterruptTableExtendedMode : 0) |
                table.size());
    if (!command(driver::kSetInterruptTable) || !submit(Descriptor::interrupt_entries_global()) ||
        !command(compatibility_format ? driver::kCompatibilityInterrupts : 0,
                 compatibility_format ? 0 : driver::kCompatibilityInterrupts) ||
        !command(driver::kInterruptRemappingEnable)) {
        throw TransportError("the unit did not enable interrupt remapping");
    }
}

void ModelDriver::attach(SourceId function, const SecondStage& table, std::uint16_t domain) {
    contexts_.set(function, {.table = table.root(), .levels = table.levels(), .domain = domain});
}

void ModelDriver::enqueue(const Descriptor& descriptor) {
    const Gpa slot = queue_ + tail_ * Descriptor::kBytes;
    machine_.store64(slot + 8, descriptor.high);
    machine_.store64(slot, descriptor.low);
    tail_ = (tail_ + 1) % queue_entries_;
}

void ModelDriver::ring() {
    write64(driver::kQueueTail, tail_ * Descriptor::kBytes);
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
    bool stopped = false;
    const bool ended = comes_true([&] {
        if (static_cast<std::uint32_t>(machine_.load64(status_)) == expected) {
            return true;
        }
        stopped = (read32(driver::kFaultStatus) & driver::kQueueError) != 0;
        return stopped;
    });
    if (!ended) {
        throw TransportError("the invalidation queue neither completed nor stopped");
    }
    return !stopped;
}

std::vector<Fault> ModelDriver::take_faults() {
    const std::uint32_t base = driver::fault_record_offset(capability_);
    const unsigned count = driver::fault_record_count(capability_);
    const unsigned first = read32(driver::kFaultStatus) >> 8 & 0xff;
    std::vector<Fault> faults;
    for (unsigned i = 0; i < count; i++) {
        const std::uint32_t record = base + (first + i) % count * driver::kFaultRecordBytes;
        const std::uint64_t high = read64(record + 8);
        if ((high & driver::kRecordFault) == 0) {
            break;
        }
        faults.push_back(driver::fault_of(read64(record), high));
        write32(record + 12, 1u << 31);
    }
    write32(driver::kFaultStatus, driver::kFaultOverflow);
    return faults;
}

}  // namespace umbra::qtest
