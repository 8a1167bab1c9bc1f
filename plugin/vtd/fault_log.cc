// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/fault_log.h"

#include "plugin/vtd/spec/registers.h"

namespace umbra::vtd {
namespace {

using namespace spec::fault_status;

constexpr std::uint32_t kConditions =
    kOverflow | kPending | kQueueError | kCompletionError | kTimeoutError;

constexpr std::uint32_t record_offset(std::uint32_t index) {
    return spec::offset::kFaultRecording + index * spec::kFaultRecordBytes;
}

constexpr std::uint32_t upper_half(std::uint32_t index) {
    return record_offset(index) + sizeof(std::uint64_t);
}

}  // namespace

FaultLog::FaultLog(RegisterFile& registers, MessageSink& messages, Counters& counters)
    : registers_(registers),
      messages_(messages),
      counters_(counters),
      event_(registers, spec::offset::kFaultEventControl) {}

void FaultLog::record(const Fault& fault) {
    using namespace spec::fault_record;
    const std::uint64_t low = fault.information & kAddress;
    const std::uint64_t high = kFault | (fault.read ? kRead : 0) |
                               static_cast<std::uint64_t>(fault.reason) << kReasonShift |
                               std::uint64_t{fault.source.value()} << kSourceShift;
    std::optional<Message> message;
    {
        const std::lock_guard lock(mutex_);
        const std::uint32_t status = registers_.get32(spec::offset::kFaultStatus);
        const bool full = (registers_.get64(upper_half(next_)) & kFault) != 0;
        if (is_newest(low, high)) {
            counters_.faults.collapsed.add();
        } else if (full || (status & kOverflow) != 0) {
            counters_.faults.overflowed.add();
            message = set_status(kOverflow);
        } else {
            // F is in the last word that is written, so software that sees it sees all.
            registers_.set64(record_offset(next_), low);
            registers_.set64(upper_half(next_), high);
            counters_.faults.recorded.add();
            if ((status & spec::fault_status::kPending) == 0) {
                registers_.set32(spec::offset::kFaultStatus,
                                 (status & ~kRecordIndex) | next_ << kRecordIndexShift);
            }
            next_ = (next_ + 1) % spec::kFaultRecords;
            message = set_status(spec::fault_status::kPending);
        }
    }
    send_if_any(messages_, message);
}

void FaultLog::raise_queue_error() {
    std::optional<Message> message;
    {
        const std::lock_guard lock(mutex_);
        message = set_status(kQueueError);
    }
    send_if_any(messages_, message);
}

bool FaultLog::has_queue_error() const {
    return (registers_.get32(spec::offset::kFaultStatus) & kQueueError) != 0;
}

bool FaultLog::owns(std::uint32_t offset) {
    const bool status_and_event =
        offset >= spec::offset::kFaultStatus && offset < spec::offset::kFaultEventUpperAddress + 4;
    return status_and_event ||
           (offset >= record_offset(0) && offset < record_offset(spec::kFaultRecords));
}

void FaultLog::software_write(std::uint32_t offset, std::uint64_t value, unsigned size) {
    std::optional<Message> message;
    {
        const std::lock_guard lock(mutex_);
        registers_.software_write(offset, value, size);
        if (offset == spec::offset::kFaultEventControl) {
            message = event_.control_written();
        } else {
            settle();
        }
    }
    send_if_any(messages_, message);
}

void FaultLog::reset() {
    const std::lock_guard lock(mutex_);
    registers_.reset();
    next_ = 0;
}

void FaultLog::save(SavedState& state) const {
    const std::lock_guard lock(mutex_);
    state.registers = registers_.save();
    state.next_fault_record = next_;
}

void FaultLog::restore(const SavedState& state) {
    const std::lock_guard lock(mutex_);
    registers_.restore(state.registers);
    next_ = state.next_fault_record;
}

bool FaultLog::is_newest(std::uint64_t low, std::uint64_t high) const {
    const std::uint32_t newest = (next_ + spec::kFaultRecords - 1) % spec::kFaultRecords;
    return registers_.get64(upper_half(newest)) == high &&
           registers_.get64(record_offset(newest)) == low;
}

std::optional<Message> FaultLog::set_status(std::uint32_t bits) {
    const std::uint32_t before = registers_.get32(spec::offset::kFaultStatus);
    registers_.set32(spec::offset::kFaultStatus, before | bits);
    // With any of the conditions already up, another one is no new interrupt (FECTL.IP).
    return (before & kConditions) == 0 ? event_.raise() : std::nullopt;
}

void FaultLog::settle() {
    bool pending = false;
    for (std::uint32_t i = 0; i < spec::kFaultRecords; ++i) {
        pending |= (registers_.get64(upper_half(i)) & spec::fault_record::kFault) != 0;
    }
    std::uint32_t status = registers_.get32(spec::offset::kFaultStatus);
    if (!pending) {
        status &= ~spec::fault_status::kPending;
        registers_.set32(spec::offset::kFaultStatus, status);
    }
    if ((status & kConditions) == 0) {
        event_.served();
    }
}

}  // namespace umbra::vtd
