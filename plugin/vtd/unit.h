// SPDX-License-Identifier: GPL-2.0-or-later
//
// One VT-d remapping unit, as the platform around it sees it: a page of registers that the guest
// programs, a translation for every DMA of the devices behind it, and a remapping for every
// interrupt that they send. A platform needs no other header of plugin/vtd.
//
// The unit runs no thread and keeps no time. It acts inside the calls that it gets. A write to the
// queue's tail register returns when every descriptor up to the tail has been carried out, the
// queue has stopped at a faulty one, or the observer wants to go on later. No value that a guest
// writes to registers, queue or tables makes the unit assert, allocate without bound or loop
// without bound. A request that the specification does not allow gets the specification's fault or
// is ignored, and is counted.
//
// References to "specification" mean the Intel Virtualization Technology for Directed I/O
// Architecture Specification, revision 4.1. Legacy mode only (TTM 00b).
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "plugin/vtd/capabilities.h"
#include "plugin/vtd/context_cache.h"
#include "plugin/vtd/context_tables.h"
#include "plugin/vtd/counters.h"
#include "plugin/vtd/fault_log.h"
#include "plugin/vtd/fault_reason.h"
#include "plugin/vtd/guest_memory.h"
#include "plugin/vtd/interrupt_remapping.h"
#include "plugin/vtd/invalidation.h"
#include "plugin/vtd/invalidation_queue.h"
#include "plugin/vtd/invalidator.h"
#include "plugin/vtd/iotlb.h"
#include "plugin/vtd/ports.h"
#include "plugin/vtd/registers.h"
#include "plugin/vtd/saved_state.h"
#include "plugin/vtd/second_stage.h"
#include "plugin/vtd/types.h"
#include "plugin/vtd/unit_properties.h"

namespace umbra::vtd {

// Bytes of MMIO space that the unit's registers occupy, from the unit's base address.
inline constexpr std::uint32_t kRegisterSpace = 0x1000;

// The outcome of one DMA.
struct Translation {
    bool ok = false;
    // Meaningful if ok. `address` is where the IOVA itself lands, offset within the page included.
    Gpa address;
    // Size in bytes minus one of the naturally aligned block around the IOVA for which this answer
    // holds: that of the page (0xfff, 0x1fffff, 0x3fffffff), or 0xfffff if addresses pass unchanged
    // or a larger block would reach into the interrupt address range.
    std::uint64_t page_mask = 0;
    // Everything that the mapping allows, which may be more than was asked for.
    Access granted = Access::none;
    // Domain whose table was used, or that of a pass-through device. 0 if the request was blocked
    // before a domain was known, or if translation is off.
    DomainId domain{};
    // Meaningful if not ok.
    FaultReason reason = FaultReason::none;
    // An FPD bit forbids recording the fault (translate() has heeded it already).
    bool fault_processing_disabled = false;
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
    Unit(const Unit&) = delete;
    Unit& operator=(const Unit&) = delete;

    // ---- From one thread at a time (QEMU: with the big lock held) ----

    // The unit offers addresses of `width` bits (39 or 48) from here on. Only before software has
    // seen the unit, and before any DMA.
    void set_address_width(unsigned width);

    // Guest access to the register at `offset` (below kRegisterSpace). `size` is 4 or 8 bytes; an
    // access of another size, an unaligned one, or one to an unknown offset reads 0 and writes
    // nothing. An 8-byte access to a pair of 4-byte registers acts on both, lower one first.
    [[nodiscard]] std::uint64_t mmio_read(std::uint32_t offset, unsigned size) const;
    void mmio_write(std::uint32_t offset, std::uint64_t value, unsigned size);

    // Whether something waits for the observer to catch up (InvalidationObserver::caught_up): the
    // queue before a wait descriptor, or a command by register, whose status software polls. The
    // caller lets the observer work and then calls resume(), until this is false. What waits for
    // InvalidationObserver::may_complete() alone is no work; it is again when that is true.
    [[nodiscard]] bool has_work() const;
    // Goes on with the queue and the commands that waited, if the observer has caught up. Does
    // nothing otherwise.
    void resume();

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
    // send the fault event from the calling thread. An address in the interrupt address range is no
    // DMA and is blocked here: the platform takes it to remap().
    [[nodiscard]] Translation translate(SourceId source, Iova iova, Access wanted);

    // The translation that the tables in guest memory give `iova` now, without side effects:
    // nothing is logged, counted or cached, and no cache is consulted. `ok` means that some access
    // is possible, and `granted` says which. For debuggers and replay.
    [[nodiscard]] Translation lookup(SourceId source, Iova iova) const;

    // Remaps a message that `source` wrote to the interrupt address range (0xFEEx_xxxx): `address`
    // and `data` as on the bus. Logs a fault as translate() does.
    [[nodiscard]] InterruptResult remap(SourceId source, std::uint64_t address, std::uint32_t data);

    // The same answer without side effects: nothing logged or counted. For interrupt routes that
    // are set up ahead of the interrupt.
    [[nodiscard]] InterruptResult lookup_interrupt(SourceId source, std::uint64_t address,
                                                   std::uint32_t data) const;

    // Where the tables that the guest has in force now send device `source`, read from guest memory
    // without side effects. With translation off it says so (see ContextLookup).
    [[nodiscard]] ContextLookup context_of(SourceId source) const;

    // GSTS.TES and GSTS.IRES.
    [[nodiscard]] bool translation_enabled() const;
    [[nodiscard]] bool interrupt_remapping_enabled() const;

    [[nodiscard]] const UnitProperties& properties() const { return properties_; }
    [[nodiscard]] const Counters& counters() const { return counters_; }
    void clear_counters() { counters_.clear(); }

  private:
    // Commands by register that took effect for the unit itself, while the observer has yet to
    // catch up. Software sees them completed after that.
    struct PendingCommands {
        std::uint64_t set = 0;   // bits of GSTS that will be set
        bool queue_off = false;  // GSTS.QIES will be cleared
        bool context = false;    // CCMD.ICC will be cleared
        bool iotlb = false;      // IOTLB.IVT will be cleared

        [[nodiscard]] bool any() const { return set != 0 || queue_off || context || iotlb; }
    };

    // What is in force for DMA, and for interrupts; unit_state.h has the layouts.
    using TranslationState = std::uint64_t;
    using InterruptState = std::uint64_t;

    // unit.cc: registers, reset and migration.
    void write_register(std::uint32_t offset, std::uint64_t value, unsigned size);
    void after_write(std::uint32_t offset);
    void adopt(TranslationState translation, InterruptState interrupts);

    // unit_commands.cc: commands by register.
    void command_written();
    void set_root_table();
    void enable_translation(bool on);
    void change_translation(TranslationState state);
    void complete_commands();
    void set_interrupt_table();
    void enable_interrupt_remapping(bool on);
    void allow_compatibility_interrupts(bool on);
    void change_interrupts(InterruptState state);
    void enable_queue(bool on);
    void context_command_written();
    void iotlb_command_written();
    [[nodiscard]] bool carry_out(const std::optional<Invalidation>& invalidation);
    [[nodiscard]] bool caught_up() const { return observer_ == nullptr || observer_->caught_up(); }
    [[nodiscard]] bool may_complete() const {
        return observer_ == nullptr || observer_->may_complete();
    }
    // Shows software that the commands are done.
    static void show_done(RegisterFile& registers, const PendingCommands& done);

    // unit_requests.cc: DMA and interrupts.
    [[nodiscard]] ContextLookup cached_context(TranslationState state, SourceId source,
                                               ContextCache::Generation generation);
    [[nodiscard]] Translation second_stage(const ContextLookup& context, Iova iova, Access wanted,
                                           Iotlb::Generation generation);
    [[nodiscard]] Translation without_second_stage(const ContextLookup& context, Iova iova) const;
    Translation report(SourceId source, Iova iova, Access wanted, const Translation& blocked);

    UnitProperties properties_;
    Capabilities capabilities_;
    InvalidationObserver* observer_;

    Counters counters_;
    RegisterFile registers_;
    ContextTables context_tables_;
    ContextCache context_cache_;
    SecondStage second_stage_;
    Iotlb iotlb_;
    InterruptRemapper interrupt_remapper_;
    FaultLog fault_log_;
    Invalidator invalidator_;
    InvalidationQueue queue_;
    PendingCommands pending_;

    std::atomic<TranslationState> translation_{0};
    std::atomic<InterruptState> interrupts_{0};
};

}  // namespace umbra::vtd
