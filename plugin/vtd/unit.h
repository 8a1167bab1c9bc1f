// SPDX-License-Identifier: GPL-2.0-or-later
//
// One VT-d remapping unit, as the platform around it sees it: a page of registers that the guest
// programs, a translation for every DMA of the devices behind it, and a remapping for every
// interrupt that they send. This is the only header of plugin/vtd that the QEMU glue needs.
//
// The unit runs no thread and keeps no time. It acts inside the call that it is given: a write to
// the queue's tail register returns when every descriptor up to the tail has been carried out, or
// the queue has stopped at a faulty one. Nothing that a guest writes to registers, queue or tables
// makes it assert, allocate without bound or loop without bound; what the specification does not
// allow gets the specification's fault, or is ignored, and is counted.
//
// References to "specification" mean the Intel Virtualization Technology for Directed I/O
// Architecture Specification, revision 4.1. Legacy mode only (TTM 00b).
#pragma once

#include <cstdint>
#include <memory>

#include "plugin/vtd/context_tables.h"
#include "plugin/vtd/counters.h"
#include "plugin/vtd/fault_reason.h"
#include "plugin/vtd/guest_memory.h"
#include "plugin/vtd/interrupt_remapping.h"
#include "plugin/vtd/ports.h"
#include "plugin/vtd/saved_state.h"
#include "plugin/vtd/types.h"

namespace umbra::vtd {

// Bytes of MMIO space that the unit's registers occupy, from the unit's base address.
inline constexpr std::uint32_t kRegisterSpace = 0x1000;

// What the person who launches the machine chooses. Everything else that CAP and ECAP report is
// fixed (capabilities.cc goes through them field by field).
struct UnitProperties {
    // CAP.CM: the guest must invalidate after every change of a table, also after making an absent
    // entry present. The shadow needs it.
    bool caching_mode = true;
    // Widest IOVA in bits: 39 (three-level tables only) or 48 (three- and four-level tables).
    unsigned address_width = 48;
    // Width of guest-physical addresses in bits, 32 to 52: what the DMAR table reports as Host
    // Address Width. Address bits above it are reserved in every table entry and register.
    unsigned host_address_width = 48;
    bool interrupt_remapping = true;       // ECAP.IR
    bool extended_interrupt_mode = false;  // ECAP.EIM: 32-bit APIC ids; needs interrupt_remapping
    bool pass_through = true;              // ECAP.PT
    bool device_iotlb = false;             // ECAP.DT: devices may have TLBs of their own (ATS)
    bool snoop_control = false;            // ECAP.SC

    // A sentence that says what is wrong, or nullptr if a unit can be made of these.
    [[nodiscard]] const char* error() const;
};

// What became of one DMA.
struct Translation {
    bool ok = false;
    // Meaningful if ok. `address` is where `iova` itself lands, offset within the page included.
    Gpa address;
    // Size in bytes minus one of the naturally aligned block around `iova` for which this answer
    // holds: 0xfff, 0x1fffff or 0x3fffffff for a page, 0xfffff if addresses are not translated.
    std::uint64_t page_mask = 0;
    // Everything that the mapping allows, which may be more than was asked for.
    Access granted = Access::none;
    // Domain whose table was used; 0 if the request was blocked before a domain was known or if
    // translation is off.
    DomainId domain{};
    // Meaningful if not ok.
    FaultReason reason{};
};

class Unit {
  public:
    // All of them outlive the unit. `observer` may be null.
    struct Ports {
        GuestMemory& memory;
        MessageSink& messages;
        InvalidationObserver* observer = nullptr;
    };

    // `properties.error()` must be null. The unit comes up as after reset().
    Unit(const UnitProperties& properties, Ports ports);
    ~Unit();
    Unit(const Unit&) = delete;
    Unit& operator=(const Unit&) = delete;

    // ---- From one thread at a time (QEMU: with the big lock held) ----

    // Guest access to the register at `offset` (below kRegisterSpace). `size` is 4 or 8 bytes; an
    // access of another size, an unaligned one, or one to an unknown offset reads 0 and writes
    // nothing. An 8-byte access to a pair of 4-byte registers acts on both, lower one first.
    [[nodiscard]] std::uint64_t mmio_read(std::uint32_t offset, unsigned size) const;
    void mmio_write(std::uint32_t offset, std::uint64_t value, unsigned size);

    // Power-on state: registers at their defaults, every cached entry dropped, translation and
    // interrupt remapping off. The observer is told. Counters are kept: they are the operator's.
    void reset();

    // State for migration and snapshots. Cached translations are not part of it; they may be
    // dropped at any time. restore() fails, and changes nothing, if `state` cannot come from a unit
    // of the same properties (the stream is untrusted input). On success the observer is told of
    // the new translation and interrupt remapping state as if the guest had just set it.
    [[nodiscard]] SavedState save() const;
    [[nodiscard]] bool restore(const SavedState& state);

    // ---- From any thread; concurrently with each other and with everything above ----

    // Translates a DMA of device `source` that needs `wanted` (Access::none is a zero-length
    // read). A failure is logged as the specification says, unless an FPD bit forbids it, and may
    // send the fault event from the calling thread.
    [[nodiscard]] Translation translate(SourceId source, Iova iova, Access wanted);

    // The same answer without side effects: nothing logged, cached or counted. `ok` means that the
    // address is mapped at all; look at `granted` for what is allowed. For debuggers and replay.
    [[nodiscard]] Translation lookup(SourceId source, Iova iova) const;

    // Remaps a message that `source` wrote to the interrupt address range (0xFEEx_xxxx): `address`
    // and `data` as on the bus. Logs a fault as translate() does.
    [[nodiscard]] InterruptResult remap(SourceId source, std::uint64_t address, std::uint32_t data);

    // Where the tables that the guest has in force now send device `source`, read from guest memory
    // without side effects. With translation off it says so (see ContextLookup).
    [[nodiscard]] ContextLookup context_of(SourceId source) const;

    // GSTS.TES and GSTS.IRES.
    [[nodiscard]] bool translation_enabled() const;
    [[nodiscard]] bool interrupt_remapping_enabled() const;

    [[nodiscard]] const UnitProperties& properties() const;
    [[nodiscard]] const Counters& counters() const;
    void clear_counters();

  private:
    class Implementation;
    std::unique_ptr<Implementation> implementation_;
};

}  // namespace umbra::vtd
