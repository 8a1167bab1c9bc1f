// SPDX-License-Identifier: GPL-2.0-or-later
//
// A guest that fills its invalidation queue with whatever it likes. The input is a byte of options,
// then descriptors; after every few of them the tail moves, to where they end or to anywhere.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "plugin/vtd/unit.h"
#include "tests/fuzz/input.h"
#include "tests/support/driver/descriptor.h"
#include "tests/support/driver/layout.h"
#include "tests/support/fake_guest_memory.h"
#include "tests/support/fake_message_sink.h"
#include "tests/support/fake_observer.h"

namespace umbra::fuzz {
namespace {

constexpr Gpa kQueue{0x4000};
constexpr std::uint64_t kSlots = 512;
constexpr std::size_t kMemoryBytes = 0x8000;

using driver::Descriptor;

std::uint64_t carried_out(const vtd::Counters& counters) {
    std::uint64_t sum = counters.queue.wait_descriptors.value();
    for (std::size_t kind = 0; kind < vtd::kInvalidationKinds; ++kind) {
        sum += counters
                   .invalidation(static_cast<vtd::InvalidationKind>(kind),
                                 vtd::InvalidationPath::queue)
                   .value();
    }
    return sum;
}

void run(Input& input) {
    const auto options = input.take<std::uint8_t>();
    vtd::UnitProperties properties;
    properties.device_iotlb = (options & 1) != 0;
    properties.interrupt_remapping = (options & 2) == 0;
    testing::Journal journal;
    testing::FakeGuestMemory memory(kMemoryBytes, Gpa(), &journal);
    testing::FakeMessageSink messages;
    testing::FakeObserver observer(journal);
    vtd::Unit unit(properties, {.memory = memory, .messages = messages, .observer = &observer});
    // A guest can point the unit's own interrupts at the unit.
    messages.on_send = [&](std::uint64_t address, std::uint32_t data) {
        unit.mmio_write(static_cast<std::uint32_t>(address & 0xffc), data, 4);
    };
    unit.mmio_write(driver::kQueueAddress, kQueue.value() | 1, 8);
    unit.mmio_write(driver::kGlobalCommand, driver::kQueueEnable, 4);
    unit.mmio_write(driver::kCompletionEventControl, 0, 4);
    unit.mmio_write(driver::kFaultEventControl, 0, 4);
    if ((options & 4) != 0) {
        unit.mmio_write(driver::kCompletionEventControl + 4, input.take<std::uint64_t>(), 8);
        unit.mmio_write(driver::kCompletionEventControl + 8, input.take<std::uint64_t>(), 8);
        unit.mmio_write(driver::kFaultEventControl + 8, input.take<std::uint64_t>(), 8);
    }

    std::uint64_t slot = 0;
    while (!input.empty()) {
        const auto step = input.take<std::uint8_t>();
        memory.store(kQueue + slot % kSlots * sizeof(Descriptor), input.take<Descriptor>());
        ++slot;
        if ((step & 3) != 0) {
            continue;
        }
        const std::uint64_t before = carried_out(unit.counters());
        journal.clear();
        const std::uint64_t tail = (step & 4) != 0 ? input.take<std::uint16_t>() : slot % kSlots;
        unit.mmio_write(driver::kQueueTail, tail << 4, 8);
        require(carried_out(unit.counters()) - before <= kSlots, "work is bounded by the queue");
        require(std::count(journal.begin(), journal.end(), "begin") ==
                    std::count(journal.begin(), journal.end(), "end"),
                "every batch ends");
        const bool stopped = (unit.mmio_read(driver::kFaultStatus, 4) & driver::kQueueError) != 0;
        // An interrupt of the unit that leads to its own registers may have changed anything.
        if ((options & 4) == 0) {
            require(stopped || unit.mmio_read(driver::kQueueHead, 8) ==
                                   unit.mmio_read(driver::kQueueTail, 8),
                    "the queue is empty or has stopped");
        }
        if (stopped) {
            const std::uint64_t bad = unit.mmio_read(driver::kQueueHead, 8) >> 4 & (kSlots - 1);
            memory.store(kQueue + bad * sizeof(Descriptor), Descriptor{0x05, 0});
            unit.mmio_write(driver::kQueueTail, bad << 4, 8);
            unit.mmio_write(driver::kFaultStatus, driver::kQueueError, 4);
            slot = bad;
        }
        unit.mmio_write(driver::kCompletionStatus, 1, 4);
    }
}

}  // namespace
}  // namespace umbra::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    umbra::fuzz::Input input(data, size);
    umbra::fuzz::run(input);
    return 0;
}
