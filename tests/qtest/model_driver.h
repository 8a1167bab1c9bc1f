// SPDX-License-Identifier: GPL-2.0-or-later
//
// A minimal VT-d driver. It programs a unit through registers and tables, as a guest's operating
// system does, and reads the faults that the unit recorded.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "plugin/vtd/types.h"
#include "tests/qtest/qtest_machine.h"
#include "tests/support/driver/context_tables.h"
#include "tests/support/driver/descriptor.h"
#include "tests/support/driver/fault.h"
#include "tests/support/driver/interrupt_table.h"
#include "tests/support/driver/layout.h"
#include "tests/support/driver/page_allocator.h"
#include "tests/support/driver/second_stage.h"

namespace umbra::qtest {

using driver::Context;
using driver::ContextTables;
using driver::Descriptor;
using driver::Fault;
using driver::InterruptEntry;
using driver::InterruptTable;
using driver::Leaf;
using driver::leaf_size;
using driver::PageAllocator;
using driver::remappable_address;
using driver::SecondStage;

// Where both vIOMMUs of a q35 machine put their registers.
inline constexpr std::uint64_t kUnitBase = 0xfed9'0000;

class ModelDriver {
  public:
    // Tables come from RAM between 16 MiB and the last 16 MiB of the first quarter of it, at least
    // 32 MiB; the rest is the caller's. `queue_order` is QS: 2^queue_order pages of descriptors.
    explicit ModelDriver(QtestMachine& machine, unsigned queue_order = 0);

    [[nodiscard]] QtestMachine& machine() { return machine_; }
    [[nodiscard]] PageAllocator& pages() { return pages_; }
    [[nodiscard]] ContextTables& contexts() { return contexts_; }
    [[nodiscard]] std::uint64_t capability() const { return capability_; }
    [[nodiscard]] std::uint64_t extended_capability() const { return extended_capability_; }

    // Registers of the unit, by offset.
    [[nodiscard]] std::uint32_t read32(std::uint32_t offset) {
        return machine_.read32(kUnitBase + offset);
    }
    [[nodiscard]] std::uint64_t read64(std::uint32_t offset) {
        return machine_.read64(kUnitBase + offset);
    }
    void write32(std::uint32_t offset, std::uint32_t value) {
        machine_.write32(kUnitBase + offset, value);
    }
    void write64(std::uint32_t offset, std::uint64_t value) {
        machine_.write64(kUnitBase + offset, value);
    }

    // Sets or clears bits of the global command and waits for the status to follow. False if the
    // status does not follow within 10 s.
    [[nodiscard]] bool command(std::uint32_t set, std::uint32_t clear = 0);

    // Latches the root table, starts the queue, invalidates everything, and turns translation on.
    // Throws TransportError if the unit does not follow.
    void enable_translation();
    void disable_translation();
    void enable_queue();
    // Latches the table and turns interrupt remapping on.
    void enable_interrupt_remapping(const InterruptTable& table, bool extended_mode = false,
                                    bool compatibility_format = false);

    [[nodiscard]] SecondStage new_table() {
        return {machine_, pages_, machine_.options().address_width};
    }
    void attach(SourceId function, const SecondStage& table, std::uint16_t domain);

    // Puts a descriptor into the queue without telling the unit.
    void enqueue(const Descriptor& descriptor);
    // Writes the tail register.
    void ring();
    // Enqueues the descriptors and a wait descriptor, rings, and waits for the wait's status. The
    // status may come after the write of the tail register has returned. False if the queue stopped
    // with an error. Throws std::length_error if they do not fit into the queue, TransportError if
    // the queue neither completes nor stops within 60 s.
    [[nodiscard]] bool submit(std::span<const Descriptor> descriptors);
    [[nodiscard]] bool submit(const Descriptor& descriptor) { return submit({&descriptor, 1}); }

    // The index of the next free descriptor, as the driver counts, and the place of the queue.
    [[nodiscard]] unsigned tail() const { return tail_; }
    [[nodiscard]] unsigned queue_entries() const { return queue_entries_; }
    [[nodiscard]] Gpa queue() const { return queue_; }
    void set_tail(unsigned index) { tail_ = index; }
    [[nodiscard]] Gpa status_address() const { return status_; }

    // Takes every recorded fault, oldest first, clears the records and the overflow bit.
    [[nodiscard]] std::vector<Fault> take_faults();

  private:
    QtestMachine& machine_;
    PageAllocator pages_;
    ContextTables contexts_;
    Gpa queue_;
    Gpa status_;
    unsigned queue_order_;
    unsigned queue_entries_;
    unsigned tail_ = 0;
    std::uint32_t sequence_ = 0;
    std::uint64_t capability_;
    std::uint64_t extended_capability_;
};

}  // namespace umbra::qtest
