// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/invalidation_queue.h"

#include <atomic>
#include <span>

#include "plugin/vtd/spec/registers.h"

namespace umbra::vtd {
namespace {

// The registers, under the names that the specification gives them.
using Head = spec::InvalidationQueueHead;
using Tail = spec::InvalidationQueueTail;
using Base = spec::InvalidationQueueAddress;
using CompletionStatus = spec::InvalidationCompletionStatus;

std::uint64_t queue_bytes(const RegisterFile& registers) {
    return kPageSize << Base::Size::get(registers.get<Base>());
}

// The cost of a descriptor in units of a cheap one. The queue looks at the time after kLook units.
constexpr unsigned kLook = 32;
unsigned weight(const DecodedDescriptor& decoded) {
    if (std::holds_alternative<WaitRequest>(decoded)) {
        return kLook / 8;
    }
    const auto* invalidation = std::get_if<Invalidation>(&decoded);
    const bool of_iotlb =
        invalidation != nullptr && (invalidation->kind == InvalidationKind::iotlb_global ||
                                    invalidation->kind == InvalidationKind::iotlb_domain ||
                                    invalidation->kind == InvalidationKind::iotlb_page);
    // The other kinds can change a device's view of memory, or interrupt routes.
    return of_iotlb ? 1 : kLook;
}

}  // namespace

InvalidationQueue::InvalidationQueue(const Capabilities& capabilities, Parts parts)
    : capabilities_(capabilities),
      parts_(parts),
      completion_(parts.registers, spec::InvalidationEventControl::kOffset) {}

void InvalidationQueue::run() {
    if (running_) {
        return;
    }
    publish_if_complete();
    if (!may_fetch()) {
        return;
    }
    running_ = true;
    parts_.invalidator.batch_begin();
    fetch_all();
    parts_.invalidator.batch_end();
    running_ = false;
}

bool InvalidationQueue::may_fetch() const {
    using Status = spec::GlobalStatus;
    return fetching_ && Status::QueuedInvalidation::get(parts_.registers.get<Status>()) &&
           !parts_.faults.has_queue_error() && next_ != parts_.registers.get<Tail>();
}

void InvalidationQueue::fetch_all() {
    const std::uint64_t size = queue_bytes(parts_.registers);
    std::uint64_t budget = size / sizeof(spec::Descriptor);
    unsigned done = 0;
    // Tail and state are read anew for each descriptor: an interrupt whose address leads to the
    // unit's own registers may have changed them.
    while (budget-- > 0 && may_fetch()) {
        const std::uint64_t head = next_;
        const std::uint64_t tail = parts_.registers.get<Tail>();
        if (done >= kLook) {
            done = 0;
            if (!parts_.invalidator.has_time()) {
                publish_if_complete();
                return;
            }
        }
        // Head and tail must lie in the queue. The head is outside if software made the queue
        // smaller while the queue was on.
        const DecodedDescriptor decoded =
            head < size && tail < size ? fetch(head) : QueueError::tail_out_of_range;
        // A descriptor behind an invalidation that has not taken effect stays in the queue, and is
        // fetched again later.
        if (!std::holds_alternative<Invalidation>(decoded)) {
            if (!parts_.invalidator.settled()) {
                return;
            }
            publish_head();
        }
        if (const auto* error = std::get_if<QueueError>(&decoded)) {
            stop(*error);
            return;
        }
        next_ = (head + sizeof(spec::Descriptor)) % size;
        done += weight(decoded);
        if (const auto* invalidation = std::get_if<Invalidation>(&decoded)) {
            parts_.invalidator.apply(*invalidation, InvalidationPath::queue);
        } else if (const auto* wait = std::get_if<WaitRequest>(&decoded)) {
            complete(*wait);
            publish_head();
        }
    }
    parts_.invalidator.barrier();
    publish_if_complete();
}

void InvalidationQueue::publish_if_complete() {
    if (parts_.invalidator.complete()) {
        publish_head();
    }
}

void InvalidationQueue::publish_head() {
    parts_.registers.set<Head>(next_);
}

DecodedDescriptor InvalidationQueue::fetch(std::uint64_t head) const {
    const Gpa base = Base::Address::get(parts_.registers.get<Base>());
    spec::Descriptor descriptor;
    if (!parts_.memory.read(base + head, std::as_writable_bytes(std::span(&descriptor, 1)))) {
        return QueueError::fetch_failed;
    }
    return decode(descriptor, capabilities_);
}

void InvalidationQueue::complete(const WaitRequest& wait) {
    Counters& counters = parts_.counters;
    counters.queue.wait_descriptors.add();
    if (wait.fence) {
        counters.queue.wait_fence.add();
    }
    if (wait.status_write) {
        // The effects of earlier invalidations are visible to other threads before the status is:
        // a guest CPU that sees the status may reuse the memory.
        std::atomic_thread_fence(std::memory_order_seq_cst);
        if (parts_.memory.write(wait.status_address,
                                std::as_bytes(std::span(&wait.status_data, 1)))) {
            counters.queue.wait_status.add();
        } else {
            // A bus, too, loses a write to an address without memory. That is no error of the
            // queue.
            counters.queue.wait_status_lost.add();
        }
    }
    if (wait.interrupt) {
        counters.queue.wait_interrupt.add();
        RegisterFile& registers = parts_.registers;
        std::uint64_t status = registers.get<CompletionStatus>();
        const bool already_complete = CompletionStatus::WaitComplete::get(status);
        CompletionStatus::WaitComplete::set(status, true);
        registers.set<CompletionStatus>(status);
        // With IWC already set this is no new interrupt condition (IECTL.IP).
        if (!already_complete) {
            send_if_any(parts_.messages, completion_.raise());
        }
    }
}

void InvalidationQueue::stop(QueueError error) {
    parts_.counters.queue.errors[error].add();
    parts_.faults.raise_queue_error();
}

void InvalidationQueue::reset_head() {
    fetching_ = true;
    next_ = 0;
    publish_head();
}

void InvalidationQueue::restored() {
    fetching_ = true;
    next_ = parts_.registers.get<Head>();
}

void InvalidationQueue::completion_status_written() {
    if (!CompletionStatus::WaitComplete::get(parts_.registers.get<CompletionStatus>())) {
        completion_.served();
    }
}

void InvalidationQueue::completion_control_written() {
    send_if_any(parts_.messages, completion_.control_written());
}

}  // namespace umbra::vtd
