// SPDX-License-Identifier: GPL-2.0-or-later
//
// A unit with fakes around it, and the moves that guest software makes: commands, descriptors,
// tables. Offsets and bits are those of tests/support/driver, so that a test does not inherit a
// wrong number from the code under test; their names here are the specification's abbreviations.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "plugin/vtd/unit.h"
#include "tests/support/driver/context_tables.h"
#include "tests/support/driver/descriptor.h"
#include "tests/support/driver/layout.h"
#include "tests/support/driver/page_allocator.h"
#include "tests/support/driver/second_stage.h"
#include "tests/support/fake_guest_memory.h"
#include "tests/support/fake_message_sink.h"
#include "tests/support/fake_observer.h"
#include "tests/support/journal.h"

namespace umbra::vtd::testing {

using umbra::testing::FakeGuestMemory;
using umbra::testing::FakeMessageSink;
using umbra::testing::FakeObserver;
using umbra::testing::Journal;

// Register offsets.
inline constexpr std::uint32_t kCap = driver::kCapability;
inline constexpr std::uint32_t kEcap = driver::kExtendedCapability;
inline constexpr std::uint32_t kGcmd = driver::kGlobalCommand;
inline constexpr std::uint32_t kGsts = driver::kGlobalStatus;
inline constexpr std::uint32_t kRtaddr = driver::kRootTableAddress;
inline constexpr std::uint32_t kCcmd = driver::kContextCommand;
inline constexpr std::uint32_t kFsts = driver::kFaultStatus;
inline constexpr std::uint32_t kFectl = driver::kFaultEventControl;
inline constexpr std::uint32_t kFedata = driver::kFaultEventData;
inline constexpr std::uint32_t kFeaddr = driver::kFaultEventAddress;
inline constexpr std::uint32_t kFeuaddr = driver::kFaultEventUpperAddress;
inline constexpr std::uint32_t kIqh = driver::kQueueHead;
inline constexpr std::uint32_t kIqt = driver::kQueueTail;
inline constexpr std::uint32_t kIqa = driver::kQueueAddress;
inline constexpr std::uint32_t kIcs = driver::kCompletionStatus;
inline constexpr std::uint32_t kIectl = driver::kCompletionEventControl;
inline constexpr std::uint32_t kIedata = driver::kCompletionEventData;
inline constexpr std::uint32_t kIeaddr = driver::kCompletionEventAddress;
inline constexpr std::uint32_t kIeuaddr = driver::kCompletionEventUpperAddress;
inline constexpr std::uint32_t kIrta = driver::kInterruptTableAddress;

// Bits of GCMD and GSTS.
inline constexpr std::uint32_t kTe = driver::kTranslationEnable;
inline constexpr std::uint32_t kSrtp = driver::kSetRootTable;
inline constexpr std::uint32_t kQie = driver::kQueueEnable;
inline constexpr std::uint32_t kIre = driver::kInterruptRemappingEnable;
inline constexpr std::uint32_t kSirtp = driver::kSetInterruptTable;
inline constexpr std::uint32_t kCfi = driver::kCompatibilityInterrupts;

// Bits of FSTS.
inline constexpr std::uint32_t kPfo = driver::kFaultOverflow;
inline constexpr std::uint32_t kPpf = driver::kFaultPending;
inline constexpr std::uint32_t kIqe = driver::kQueueError;

// Bits of FECTL and IECTL.
inline constexpr std::uint32_t kIm = driver::kEventMask;
inline constexpr std::uint32_t kIp = driver::kEventPending;

// A descriptor, a table entry or a fault record, in its two halves.
using Quads = driver::Descriptor;

class UnitFixture : public ::testing::Test {
  protected:
    // Where the pieces lie in guest memory. The queue has room for its largest size.
    static constexpr std::uint64_t kMemoryBytes = 4 << 20;
    static constexpr Gpa kQueue{0x100000};
    static constexpr Gpa kStatus{0x1000};
    static constexpr Gpa kRootTable{0x10000};
    static constexpr Gpa kInterruptTable{0x20000};
    static constexpr std::uint64_t kFaultMessage = 0xfee01000;
    static constexpr std::uint32_t kFaultData = 0x4021;
    static constexpr std::uint64_t kCompletionMessage = 0xfee02000;
    static constexpr std::uint32_t kCompletionData = 0x4022;

    UnitFixture() { build(UnitProperties()); }

    // A new unit over the same memory; journal and messages start empty.
    void build(const UnitProperties& properties);

    [[nodiscard]] std::uint32_t read32(std::uint32_t offset) const {
        return static_cast<std::uint32_t>(unit->mmio_read(offset, 4));
    }
    [[nodiscard]] std::uint64_t read64(std::uint32_t offset) const {
        return unit->mmio_read(offset, 8);
    }
    void write32(std::uint32_t offset, std::uint32_t value) { unit->mmio_write(offset, value, 4); }
    void write64(std::uint32_t offset, std::uint64_t value) { unit->mmio_write(offset, value, 8); }

    // Gives one command as software does: status bits that are on stay on, `on` is added.
    void command(std::uint32_t on) { write32(kGcmd, (read32(kGsts) & ~(kSrtp | kSirtp)) | on); }
    void command_off(std::uint32_t off) {
        write32(kGcmd, read32(kGsts) & ~(kSrtp | kSirtp) & ~off);
    }

    void unmask_fault_event();
    void unmask_completion_event();

    // All 0 if nothing was counted for `domain`.
    [[nodiscard]] const DomainCounters& domain_counters(DomainId domain) const {
        const DomainCounters* counters = unit->counters().domains.find(domain);
        static const DomainCounters none;
        return counters != nullptr ? *counters : none;
    }

    // Fault recording register `index`: where CAP says it is.
    [[nodiscard]] std::uint32_t record_offset(unsigned index) const;
    [[nodiscard]] unsigned record_count() const;
    [[nodiscard]] Quads record(unsigned index) const;
    [[nodiscard]] static bool is_fault(const Quads& record) {
        return (record.high & driver::kRecordFault) != 0;
    }
    [[nodiscard]] static unsigned reason(const Quads& record) {
        return driver::record_reason(record.high);
    }
    [[nodiscard]] static unsigned source(const Quads& record) {
        return driver::record_source(record.high);
    }
    void clear_record(unsigned index) {
        write32(record_offset(index) + 12, static_cast<std::uint32_t>(driver::kRecordFault >> 32));
    }
    void clear_all_faults();

    // Switches the queue on, 2^(size_field + 8) descriptors at kQueue.
    void start_queue(unsigned size_field = 0);
    void put(std::uint64_t slot, Quads descriptor);
    void set_tail(std::uint64_t slot) { write64(kIqt, slot << 4); }
    [[nodiscard]] std::uint64_t head() const { return read64(kIqh) >> 4; }
    // Puts descriptors after those that were submitted before, wrapping, and moves the tail.
    void submit(const std::vector<Quads>& descriptors);

    // Descriptors.
    static Quads context_global() { return Quads::context_global(); }
    static Quads context_domain(std::uint16_t domain) { return Quads::context_domain(domain); }
    static Quads context_device(std::uint16_t domain, std::uint16_t source,
                                unsigned function_mask = 0) {
        return Quads::context_device(domain, SourceId(source), function_mask);
    }
    static Quads iotlb_global() { return Quads::iotlb_global(); }
    static Quads iotlb_domain(std::uint16_t domain) { return Quads::iotlb_domain(domain); }
    static Quads iotlb_pages(std::uint16_t domain, std::uint64_t address, unsigned mask = 0,
                             bool leaf_only = false) {
        return Quads::iotlb_pages(domain, Iova(address), mask, leaf_only);
    }
    static Quads wait_status(Gpa address, std::uint32_t data) {
        return Quads::wait_status(address, data);
    }
    static Quads wait_interrupt() { return Quads::wait_interrupt(); }

    // Tables. Each call takes pages of a pool that starts empty with build().
    Gpa new_page();
    // Makes `device` (bus 15:8, devfn 7:0) use the four-level table `table` as domain `domain`.
    // `flags` is ORed into the lower quad: FPD is bit 1, the translation type bits 3:2.
    void set_context(std::uint16_t device, std::uint16_t domain, Gpa table,
                     std::uint64_t flags = 0);
    void clear_context(std::uint16_t device);
    // Maps one page of `level` (1, 2, 3: 4 KiB, 2 MiB, 1 GiB) with `access` bits (1 R, 2 W).
    void map(Gpa table, std::uint64_t iova, std::uint64_t gpa, unsigned level = 1,
             std::uint64_t access = 3);
    void unmap(Gpa table, std::uint64_t iova, unsigned level = 1);
    // Sets the root table pointer and switches translation on.
    void start_translation();
    // The same for interrupt remapping, with 256 entries at kInterruptTable.
    void start_remapping();

    Journal journal;
    FakeGuestMemory memory{kMemoryBytes, Gpa(), &journal};
    FakeMessageSink messages{&journal};
    FakeObserver observer{journal};
    std::unique_ptr<Unit> unit;

  private:
    // What the guest has built since build().
    struct Tables {
        explicit Tables(FakeGuestMemory& memory);
        driver::PageAllocator pages;
        driver::ContextTables contexts;
    };
    [[nodiscard]] driver::SecondStage second_stage(Gpa root);

    std::uint64_t queue_slots_ = 0;
    std::uint64_t submitted_ = 0;
    std::optional<Tables> tables_;
};

}  // namespace umbra::vtd::testing
