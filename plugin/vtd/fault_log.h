// SPDX-License-Identifier: GPL-2.0-or-later
//
// The fault log: the ring of fault recording registers, the fault status register, and the fault
// event interrupt (primary fault logging, VT-d specification 7.2.1 and 7.3).
//
// A fault goes into the next recording register of the ring. If that one still holds a fault that
// software has not cleared, the new fault is lost and PFO is set; while PFO is set, every further
// fault is lost too. PPF says that some register holds a fault, FRI which one was first. The fault
// event interrupt is raised when the first of the status bits PFO, PPF, IQE, ICE and ITE comes up;
// while one of them is set, another one is no new condition.
//
// A fault that equals the newest pending record (same source, page, reason and direction) is not
// recorded again: QEMU splits a device's transfer into requests of a few bytes where nothing is
// mapped, and one bad transfer would fill the ring.
//
// Threading: every function may be called from any thread. The log's lock guards its registers; it
// is not held while an interrupt is sent.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>

#include "plugin/vtd/counters.h"
#include "plugin/vtd/event_interrupt.h"
#include "plugin/vtd/fault_reason.h"
#include "plugin/vtd/ports.h"
#include "plugin/vtd/registers.h"
#include "plugin/vtd/saved_state.h"
#include "plugin/vtd/spec/field.h"
#include "plugin/vtd/types.h"

namespace umbra::vtd {

// A blocked request, as a fault recording register describes it.
struct Fault {
    SourceId source;
    FaultReason reason = FaultReason::none;
    // FI: the faulting IOVA (only its page is recorded), or the interrupt index in bits 63:48.
    std::uint64_t information = 0;
    bool read = false;
};

class FaultLog {
  public:
    // All outlive the log.
    FaultLog(RegisterFile& registers, MessageSink& messages, Counters& counters);

    // Records `fault`, which no FPD bit suppresses.
    void record(const Fault& fault);

    // The invalidation queue has stopped: sets IQE.
    void raise_queue_error();
    // IQE is set, so the queue must not fetch.
    [[nodiscard]] bool has_queue_error() const;

    // True for the registers that belong to the log; software's writes to them go to
    // software_write(), which takes `offset`, `value` and `size` as RegisterFile does.
    [[nodiscard]] static bool owns(std::uint32_t offset);
    void software_write(std::uint32_t offset, std::uint64_t value, unsigned size);

    // Reset, save and restore the whole register file together with the place of the next record,
    // as of one moment. restore() takes a state that the register file accepts and whose
    // next_fault_record is below spec::FaultRecord::kCount.
    void reset();
    void save(SavedState& state) const;
    void restore(const SavedState& state);

  private:
    // The lock is held in all of these.

    // The recording register of that number.
    [[nodiscard]] spec::Quads record_at(std::uint32_t index) const;
    // Which one was written last.
    [[nodiscard]] std::uint32_t newest() const;
    // Sets a bit of the fault status register.
    [[nodiscard]] std::optional<Message> set_condition(std::uint64_t condition);
    // Brings PPF and IP in line after software has cleared something.
    void settle();

    RegisterFile& registers_;
    MessageSink& messages_;
    Counters& counters_;
    EventInterrupt event_;
    mutable std::mutex mutex_;
    std::uint32_t next_ = 0;  // recording register that the next fault goes to
};

}  // namespace umbra::vtd
