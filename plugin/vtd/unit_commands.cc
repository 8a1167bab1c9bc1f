// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a unit does when software gives a command by register: the global commands, and invalidation
// by the CCMD and IOTLB registers.
#include <utility>

#include "plugin/vtd/spec/registers.h"
#include "plugin/vtd/unit.h"
#include "plugin/vtd/unit_state.h"

namespace umbra::vtd {
namespace {

using ContextCommand = spec::ContextCommand;
using Global = spec::GlobalFields;
using IotlbCommand = spec::IotlbInvalidate;

std::optional<Invalidation> decode_context_command(std::uint64_t command) {
    const DomainId domain = ContextCommand::Domain::get(command);
    switch (ContextCommand::Requested::get(command)) {
        case spec::Granularity::global:
            return Invalidation::context_global();
        case spec::Granularity::domain:
            return Invalidation::context_domain(domain);
        case spec::Granularity::selective:
            return Invalidation::context_device(
                domain, SourceMatch(ContextCommand::Source::get(command),
                                    ContextCommand::FunctionMask::get(command)));
        case spec::Granularity::reserved:
            break;
    }
    return std::nullopt;
}

// `address` is the Invalidate Address register.
std::optional<Invalidation> decode_iotlb_command(std::uint64_t command, std::uint64_t address) {
    using Pages = spec::InvalidateAddress;
    const DomainId domain = IotlbCommand::Domain::get(command);
    switch (IotlbCommand::Requested::get(command)) {
        case spec::Granularity::global:
            return Invalidation::iotlb_global();
        case spec::Granularity::domain:
            return Invalidation::iotlb_domain(domain);
        case spec::Granularity::selective:
            if (Pages::AddressMask::get(address) > kMaximumAddressMask) {
                break;
            }
            return Invalidation::iotlb_page(
                domain,
                IovaRange::pages(Pages::Address::get(address), Pages::AddressMask::get(address)),
                Pages::LeafOnly::get(address));
        case spec::Granularity::reserved:
            break;
    }
    return std::nullopt;
}

// Shows software that the command in `Register` is done, and with which granularity.
template <class Register>
void finish(RegisterFile& registers, spec::Granularity actual) {
    std::uint64_t command = registers.get<Register>();
    Register::Actual::set(command, actual);
    Register::Invalidate::set(command, false);
    registers.set<Register>(command);
}

// The same, with the granularity that was asked for.
template <class Register>
void finish(RegisterFile& registers) {
    finish<Register>(registers, Register::Requested::get(registers.get<Register>()));
}

template <class Function>
void set_status(RegisterFile& registers, bool on) {
    std::uint64_t status = registers.get<spec::GlobalStatus>();
    Function::set(status, on);
    registers.set<spec::GlobalStatus>(status);
}

}  // namespace

// ---- Global commands ----

void Unit::command_written() {
    const std::uint64_t command = registers_.get<spec::GlobalCommand>();
    registers_.set<spec::GlobalCommand>(0);
    std::uint64_t status = registers_.get<spec::GlobalStatus>() | pending_.set;
    if (pending_.queue_off) {
        Global::QueuedInvalidation::set(status, false);
    }
    const std::uint64_t changed = command ^ status;

    // Software gives one command at a time (11.4.4.1). If software gives several, pointers come
    // first, so that nothing is switched on with an old pointer.
    if (Global::RootTablePointer::get(command)) {
        set_root_table();
    }
    if (Global::InterruptTablePointer::get(command)) {
        set_interrupt_table();
    }
    if (Global::QueuedInvalidation::get(changed)) {
        enable_queue(Global::QueuedInvalidation::get(command));
    }
    if (Global::Translation::get(changed)) {
        enable_translation(Global::Translation::get(command));
    }
    if (Global::InterruptRemapping::get(changed)) {
        enable_interrupt_remapping(Global::InterruptRemapping::get(command));
    }
    if (Global::CompatibilityInterrupts::get(changed)) {
        allow_compatibility_interrupts(Global::CompatibilityInterrupts::get(command));
    }
    complete_commands();
}

void Unit::complete_commands() {
    if (pending_.any() && caught_up() && may_complete()) {
        const PendingCommands done = std::exchange(pending_, {});
        show_done(registers_, done);
        if (done.queue_off) {
            queue_.reset_head();
        }
    }
}

void Unit::show_done(RegisterFile& registers, const PendingCommands& done) {
    registers.set<spec::GlobalStatus>(registers.get<spec::GlobalStatus>() | done.set);
    if (done.queue_off) {
        set_status<Global::QueuedInvalidation>(registers, false);
        registers.set<spec::InvalidationQueueHead>(0);
    }
    if (done.context) {
        finish<ContextCommand>(registers);
    }
    if (done.iotlb) {
        finish<IotlbCommand>(registers);
    }
}

void Unit::set_root_table() {
    TranslationState state = translation_.load(std::memory_order_relaxed);
    set_status<Global::RootTablePointer>(registers_, false);
    Global::RootTablePointer::set(pending_.set, true);
    using Root = spec::RootTableAddress;
    TranslationFields::RootTable::set(state, Root::Address::get(registers_.get<Root>()));
    change_translation(state);
}

void Unit::enable_translation(bool on) {
    if (!properties_.dma_translation) {
        return;
    }
    TranslationState state = translation_.load(std::memory_order_relaxed);
    Global::Translation::set(pending_.set, on);
    if (!on) {
        set_status<Global::Translation>(registers_, false);
    }
    TranslationFields::On::set(state, on);
    change_translation(state);
}

// Software sees the command's status change only when everything cached is gone and the observer
// has followed. Only the status of translation goes off at once, since nothing is to be mapped
// then.
void Unit::change_translation(TranslationState state) {
    const TranslationState before = translation_.load(std::memory_order_relaxed);
    translation_.store(state, std::memory_order_seq_cst);
    invalidator_.drop_everything();
    const bool on = TranslationFields::On::get(state);
    const bool was_on = TranslationFields::On::get(before);
    if (observer_ != nullptr && (on || was_on)) {
        observer_->batch_begin();
        observer_->translation_changed(on);
        observer_->barrier();
        observer_->batch_end();
    }
}

void Unit::set_interrupt_table() {
    const InterruptState state = interrupts_.load(std::memory_order_relaxed);
    change_interrupts((state & ~InterruptFields::kTable) |
                      registers_.get<spec::InterruptTableAddress>());
    set_status<Global::InterruptTablePointer>(registers_, true);
}

void Unit::enable_interrupt_remapping(bool on) {
    InterruptState state = interrupts_.load(std::memory_order_relaxed);
    InterruptFields::RemappingOn::set(state, on);
    change_interrupts(state);
    set_status<Global::InterruptRemapping>(registers_, on);
}

void Unit::allow_compatibility_interrupts(bool on) {
    InterruptState state = interrupts_.load(std::memory_order_relaxed);
    InterruptFields::CompatibilityAllowed::set(state, on);
    change_interrupts(state);
    set_status<Global::CompatibilityInterrupts>(registers_, on);
}

void Unit::change_interrupts(InterruptState state) {
    interrupts_.store(state, std::memory_order_seq_cst);
    if (observer_ != nullptr) {
        observer_->batch_begin();
        observer_->interrupt_remapping_changed(InterruptFields::RemappingOn::get(state));
        observer_->barrier();
        observer_->batch_end();
    }
}

// The queue is off for software when all that was fetched has taken effect. Until then nothing more
// is fetched.
void Unit::enable_queue(bool on) {
    if (!on) {
        pending_.queue_off = true;
        queue_.stop_fetching();
        return;
    }
    pending_.queue_off = false;
    set_status<Global::QueuedInvalidation>(registers_, true);
    queue_.reset_head();
    queue_.run();
}

// ---- Register-based invalidation ----

void Unit::context_command_written() {
    const std::uint64_t command = registers_.get<ContextCommand>();
    if (!ContextCommand::Invalidate::get(command)) {
        return;
    }
    if (carry_out(decode_context_command(command))) {
        pending_.context = true;
        complete_commands();
    } else {
        finish<ContextCommand>(registers_, spec::Granularity::reserved);
    }
}

void Unit::iotlb_command_written() {
    const std::uint64_t command = registers_.get<IotlbCommand>();
    if (!IotlbCommand::Invalidate::get(command)) {
        return;
    }
    if (carry_out(decode_iotlb_command(command, registers_.get<spec::InvalidateAddress>()))) {
        pending_.iotlb = true;
        complete_commands();
    } else {
        finish<IotlbCommand>(registers_, spec::Granularity::reserved);
    }
}

// While the queue is on, software must not use the command registers. A command that comes then, or
// is not valid, is ignored: its actual granularity reads as the reserved value.
bool Unit::carry_out(const std::optional<Invalidation>& invalidation) {
    const std::uint64_t status = registers_.get<spec::GlobalStatus>();
    if (!invalidation || Global::QueuedInvalidation::get(status)) {
        counters_.register_commands_refused.add();
        return false;
    }
    invalidator_.batch_begin();
    invalidator_.apply(*invalidation, InvalidationPath::registers);
    invalidator_.barrier();
    invalidator_.batch_end();
    return true;
}

}  // namespace umbra::vtd
