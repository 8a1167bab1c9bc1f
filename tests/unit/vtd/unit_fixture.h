// SPDX-License-Identifier: GPL-2.0-or-later
//
// A unit with fakes around it, and the moves that guest software makes: commands, descriptors,
// tables. Helpers name registers by their offsets in the specification on purpose, so that a test
// does not inherit a wrong offset from the code under test.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "plugin/vtd/unit.h"
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
inline constexpr std::uint32_t kCap = 0x08;
inline constexpr std::uint32_t kEcap = 0x10;
inline constexpr std::uint32_t kGcmd = 0x18;
inline constexpr std::uint32_t kGsts = 0x1c;
inline constexpr std::uint32_t kRtaddr = 0x20;
inline constexpr std::uint32_t kCcmd = 0x28;
inline constexpr std::uint32_t kFsts = 0x34;
inline constexpr std::uint32_t kFectl = 0x38;
inline constexpr std::uint32_t kFedata = 0x3c;
inline constexpr std::uint32_t kFeaddr = 0x40;
inline constexpr std::uint32_t kFeuaddr = 0x44;
inline constexpr std::uint32_t kIqh = 0x80;
inline constexpr std::uint32_t kIqt = 0x88;
inline constexpr std::uint32_t kIqa = 0x90;
inline constexpr std::uint32_t kIcs = 0x9c;
inline constexpr std::uint32_t kIectl = 0xa0;
inline constexpr std::uint32_t kIedata = 0xa4;
inline constexpr std::uint32_t kIeaddr = 0xa8;
inline constexpr std::uint32_t kIeuaddr = 0xac;
inline constexpr std::uint32_t kIrta = 0xb8;

// Bits of GCMD and GSTS.
inline constexpr std::uint32_t kTe = 1u << 31;
inline constexpr std::uint32_t kSrtp = 1u << 30;
inline constexpr std::uint32_t kQie = 1u << 26;
inline constexpr std::uint32_t kIre = 1u << 25;
inline constexpr std::uint32_t kSirtp = 1u << 24;
inline constexpr std::uint32_t kCfi = 1u << 23;

// Bits of FSTS.
inline constexpr std::uint32_t kPfo = 1u << 0;
inline constexpr std::uint32_t kPpf = 1u << 1;
inline constexpr std::uint32_t kIqe = 1u << 4;

// Bits of FECTL and IECTL.
inline constexpr std::uint32_t kIm = 1u << 31;
inline constexpr std::uint32_t kIp = 1u << 30;

struct Quads {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
};

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
    [[nodiscard]] static bool is_fault(const Quads& record) { return record.high >> 63 != 0; }
    [[nodiscard]] static unsigned reason(const Quads& record) {
        return static_cast<unsigned>(record.high >> 32 & 0xff);
    }
    [[nodiscard]] static unsigned source(const Quads& record) {
        return static_cast<unsigned>(record.high & 0xffff);
    }
    void clear_record(unsigned index) { write32(record_offset(index) + 12, 1u << 31); }
    void clear_all_faults();

    // Switches the queue on, 2^(size_field + 8) descriptors at kQueue.
    void start_queue(unsigned size_field = 0);
    void put(std::uint64_t slot, Quads descriptor);
    void set_tail(std::uint64_t slot) { write64(kIqt, slot << 4); }
    [[nodiscard]] std::uint64_t head() const { return read64(kIqh) >> 4; }
    // Puts descriptors after those that were submitted before, wrapping, and moves the tail.
    void submit(const std::vector<Quads>& descriptors);

    // Descriptors.
    static Quads context_global() { return {0x1 | 1 << 4, 0}; }
    static Quads context_domain(std::uint16_t domain) {
        return {0x1 | 2 << 4 | std::uint64_t{domain} << 16, 0};
    }
    static Quads context_device(std::uint16_t domain, std::uint16_t source,
                                std::uint64_t function_mask = 0) {
        return {0x1 | 3 << 4 | std::uint64_t{domain} << 16 | std::uint64_t{source} << 32 |
                    function_mask << 48,
                0};
    }
    static Quads iotlb_global() { return {0x2 | 1 << 4, 0}; }
    static Quads iotlb_domain(std::uint16_t domain) {
        return {0x2 | 2 << 4 | std::uint64_t{domain} << 16, 0};
    }
    static Quads iotlb_pages(std::uint16_t domain, std::uint64_t address, unsigned mask = 0,
                             bool leaf_only = false) {
        return {0x2 | 3 << 4 | std::uint64_t{domain} << 16,
                address | std::uint64_t{leaf_only} << 6 | mask};
    }
    static Quads wait_status(Gpa address, std::uint32_t data) {
        return {0x5 | 1 << 5 | std::uint64_t{data} << 32, address.value()};
    }
    static Quads wait_interrupt() { return {0x5 | 1 << 4, 0}; }

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
    // Address of the entry of `level` for `iova`, tables in between made as needed.
    Gpa entry_of(Gpa table, std::uint64_t iova, unsigned level);

    std::uint64_t queue_slots_ = 0;
    std::uint64_t submitted_ = 0;
    Gpa next_page_;
};

}  // namespace umbra::vtd::testing
