// SPDX-License-Identifier: GPL-2.0-or-later
//
// The invalidation queue: a ring of descriptors in guest memory (VT-d specification 6.5.2).
// Software adds descriptors and moves the tail (IQT); the unit carries out the one at the head
// (IQH) and moves the head, until both are equal.
//
// Order: descriptors are carried out one after the other, each completely, so an earlier one's
// effect is in place before a later wait descriptor's status is written or its interrupt is sent,
// and the fence bit has nothing to add.
//
// Head: software sees it (IQH) at the first descriptor that is not complete. Firmware polls it, so
// it passes an invalidation only when the observer has caught up with its effect. Until then the
// queue can be further than the register says.
//
// Errors: a tail beyond the end of the queue, a descriptor that cannot be read, or one that is
// invalid stops the queue with IQE set and the head at the descriptor in question. While IQE is
// set, nothing is fetched, whatever is written to the tail. When software clears IQE, fetching goes
// on.
//
// Work is bounded: one run carries out fewer descriptors than the queue has.
//
// Threading: one thread at a time (QEMU: with the big lock held).
#pragma once

#include <cstdint>
#include <optional>

#include "plugin/vtd/capabilities.h"
#include "plugin/vtd/counters.h"
#include "plugin/vtd/descriptor.h"
#include "plugin/vtd/event_interrupt.h"
#include "plugin/vtd/fault_log.h"
#include "plugin/vtd/guest_memory.h"
#include "plugin/vtd/invalidator.h"
#include "plugin/vtd/ports.h"
#include "plugin/vtd/registers.h"

namespace umbra::vtd {

class InvalidationQueue {
  public:
    // The parts of the unit that the queue works with. All outlive it.
    struct Parts {
        RegisterFile& registers;
        GuestMemory& memory;
        MessageSink& messages;
        Invalidator& invalidator;
        FaultLog& faults;
        Counters& counters;
    };

    InvalidationQueue(const Capabilities& capabilities, Parts parts);

    // Carries out the descriptors between head and tail, if the queue is on (GSTS.QIES) and not
    // stopped. The unit calls it after every event that may let the queue go on: a write to IQT,
    // QIES set, IQE cleared, the observer caught up. A call from within a run (a descriptor's
    // message or status write can lead back here) does nothing; the run in progress takes up the
    // new tail. Brings the head register up to date as well.
    void run();

    // Whether run() would carry something out, or try to.
    [[nodiscard]] bool may_fetch() const;

    // Software asked for the queue to be off: nothing is fetched any more.
    void stop_fetching() { fetching_ = false; }
    // QIES is about to go off or on: the specification sets the head to 0.
    void reset_head();
    // The head register was restored: the queue goes on from there.
    void restored();

    // Software wrote ICS or IECTL.
    void completion_status_written();
    void completion_control_written();

  private:
    void fetch_all();
    // Everything before next_ is complete: software sees it.
    void publish_head();
    // The same, if it is.
    void publish_if_complete();
    // Reads and decodes the descriptor at byte offset `head`.
    [[nodiscard]] DecodedDescriptor fetch(std::uint64_t head) const;
    void complete(const WaitRequest& wait);
    void stop(QueueError error);

    Capabilities capabilities_;
    Parts parts_;
    EventInterrupt completion_;
    std::uint64_t next_ = 0;  // byte offset of the descriptor to fetch next
    bool fetching_ = true;
    bool running_ = false;
};

}  // namespace umbra::vtd
