// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/fault_log.h"

#include "plugin/vtd/spec/registers.h"

namespace umbra::vtd {
namespace {

using Record = spec::FaultRecord;
using Status = spec::FaultStatus;

// Each of these conditions raises the fault event.
constexpr std::uint64_t kConditions =
    spec::kMaskOf<Status::Overflow, Status::Pending, Status::QueueError, Status::CompletionError,
                  Status::TimeoutError>;

}  // namespace

FaultLog::FaultLog(RegisterFile& registers, MessageSink& messages, Counters& counters)
    : registers_(registers),
      messages_(messages),
      counters_(counters),
      event_(registers, spec::FaultEventControl::kOffset) {}

void FaultLog::record(const Fault& fault) {
    spec::Quads record;
    Record::Information::set(record, fault.information);
    Record::Source::set(record, fault.source);
    Record::Reason::set(record, fault.reason);
    Record::Read::set(record, fault.read);
    Record::Fault::set(record, true);
    std::optional<Message> message;
    {
        const std::lock_guard lock(mutex_);
        std::uint64_t status = registers_.get<Status>();
        const bool full = Record::Fault::get(record_at(next_));
        if (record == record_at(newest())) {
            counters_.faults.collapsed.add();
        } else if (full || Status::Overflow::get(status)) {
            counters_.faults.overflowed.add();
            message = set_condition(Status::Overflow::kMask);
        } else {
            // F is in the word that is written last, so software that sees F sees the whole record.
            registers_.set64(Record::offset_of(next_), record.low);
            registers_.set64(Record::offset_of(next_) + Record::kHighOffset, record.high);
            counters_.faults.recorded.add();
            if (!Status::Pending::get(status)) {
                Status::RecordIndex::set(status, next_);
                registers_.set<Status>(status);
            }
            next_ = (next_ + 1) % Record::kCount;
            message = set_condition(Status::Pending::kMask);
        }
    }
    send_if_any(messages_, message);
}

void FaultLog::raise_queue_error() {
    std::optional<Message> message;
    {
        const std::lock_guard lock(mutex_);
        message = set_condition(Status::QueueError::kMask);
    }
    send_if_any(messages_, message);
}

bool FaultLog::has_queue_error() const {
    return Status::QueueError::get(registers_.get<Status>());
}

bool FaultLog::owns(std::uint32_t offset) {
    using Last = spec::FaultEventUpperAddress;
    const bool status_and_event =
        offset >= Status::kOffset && offset < Last::kOffset + Last::kBytes;
    return status_and_event ||
           (offset >= Record::kOffset && offset < Record::offset_of(Record::kCount));
}

void FaultLog::software_write(std::uint32_t offset, std::uint64_t value, unsigned size) {
    std::optional<Message> message;
    {
        const std::lock_guard lock(mutex_);
        registers_.software_write(offset, value, size);
        if (offset == spec::FaultEventControl::kOffset) {
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

spec::Quads FaultLog::record_at(std::uint32_t index) const {
    const std::uint32_t offset = Record::offset_of(index);
    return {registers_.get64(offset), registers_.get64(offset + Record::kHighOffset)};
}

std::uint32_t FaultLog::newest() const {
    return (next_ + Record::kCount - 1) % Record::kCount;
}

std::optional<Message> FaultLog::set_condition(std::uint64_t condition) {
    const std::uint64_t before = registers_.get<Status>();
    registers_.set<Status>(before | condition);
    // With any condition already up, another one raises no new interrupt (FECTL.IP).
    return (before & kConditions) == 0 ? event_.raise() : std::nullopt;
}

void FaultLog::settle() {
    bool pending = false;
    for (std::uint32_t index = 0; index < Record::kCount; ++index) {
        pending |= Record::Fault::get(record_at(index));
    }
    std::uint64_t status = registers_.get<Status>();
    if (!pending) {
        Status::Pending::set(status, false);
        registers_.set<Status>(status);
    }
    if ((status & kConditions) == 0) {
        event_.served();
    }
}

}  // namespace umbra::vtd
