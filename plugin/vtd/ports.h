// SPDX-License-Identifier: GPL-2.0-or-later
//
// The unit's ports to the outside: one sends the unit's own interrupts, and one hears of the
// guest's invalidations. The observer is called from the thread that wrote the register which
// caused the call, with QEMU's big lock held; for interrupts see MessageSink.
#pragma once

#include <cstdint>

#include "plugin/vtd/invalidation.h"

namespace umbra::vtd {

// Sends a message-signalled interrupt of the unit itself (fault event, invalidation completion).
// Such an interrupt is not subject to interrupt remapping (VT-d specification 5.1.6).
//
// Threading: called from the thread that caused the interrupt. For a fault event that is any thread
// that may do DMA, without QEMU's big lock; calls may be concurrent. An implementation must not
// call back into the unit, which may hold the fault log's lock.
class MessageSink {
  public:
    virtual ~MessageSink() = default;
    virtual void send(std::uint64_t address, std::uint32_t data) = 0;
};

// An observer is told of every invalidation after the unit has dropped its own cached entries, and
// before the invalidation counts as complete. The effect is in place after the next barrier() that
// leaves the observer caught up. Only then may a later wait descriptor's status become visible
// (specification 6.5.2.8).
class InvalidationObserver {
  public:
    virtual ~InvalidationObserver() = default;

    // `invalidation` is the caller's and lives as long as the call.
    virtual void invalidated(const Invalidation& invalidation) = 0;

    // The guest set or cleared translation (GSTS.TES), or latched a new root table (SRTP) while it
    // was on: everything derived from the tables is void. Also called by reset.
    virtual void translation_changed(bool enabled) = 0;
    // Interrupt remapping went on or off, a new table was latched (SIRTP), or compatibility-format
    // interrupts were allowed or blocked (CFI).
    virtual void interrupt_remapping_changed(bool enabled) = 0;

    // A batch of invalidations begins and ends. Everything that one write to the tail register (or
    // one register-based command) causes lies between these two calls, and so does each wait
    // descriptor's completion. translation_changed and interrupt_remapping_changed come in batches
    // of their own. An observer that defers work carries it out in `barrier`, which is called
    // before every wait descriptor's completion and before `batch_end`.
    virtual void batch_begin() = 0;
    virtual void barrier() = 0;
    virtual void batch_end() = 0;

    // Whether every invalidation has taken effect. An observer that has a lot to do can return from
    // `barrier` after a part of the work. While this function is false, the queue stops before the
    // next wait descriptor and commands by register do not complete; Unit::resume() goes on with
    // them. Reset and restore call `barrier` until the function is true.
    [[nodiscard]] virtual bool caught_up() const { return true; }

    // Whether the guest may see anything completed. While this function is false, the queue stops
    // before the next wait descriptor and commands by register do not complete, however well the
    // observer has caught up.
    [[nodiscard]] virtual bool may_complete() const { return true; }

    // Whether the batch under way may take more. While this function is false, the queue leaves its
    // descriptors where they are, and Unit::resume() goes on with them. A queue has room for 32,768
    // descriptors, and some kinds make the platform do a lot. The queue asks every few descriptors.
    [[nodiscard]] virtual bool has_time() const { return true; }
};

}  // namespace umbra::vtd
