// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/unit.h"

#include "plugin/vtd/spec/registers.h"
#include "plugin/vtd/unit_state.h"

namespace umbra::vtd {
namespace {

// Offset of the upper half of a 64-bit register, in bytes.
constexpr std::uint32_t kUpperWord = 4;

ContextRules rules_of(const UnitProperties& properties) {
    return {.host_address_width = properties.host_address_width,
            .max_levels = properties.address_width == 48 ? 4U : 3U,
            .pass_through = properties.pass_through,
            .device_iotlb = properties.device_iotlb};
}

}  // namespace

Unit::Unit(const UnitProperties& properties, Ports ports)
    : properties_(properties),
      capabilities_(capabilities_of(properties)),
      observer_(ports.observer),
      registers_(capabilities_),
      context_tables_(ports.memory, rules_of(properties)),
      second_stage_(ports.memory,
                    EntryFormat(properties.host_address_width, properties.snoop_control),
                    capabilities_.zero_length_reads()),
      interrupt_remapper_(ports.memory),
      fault_log_(registers_, ports.messages, counters_),
      invalidator_(context_cache_, iotlb_, ports.observer, counters_),
      queue_(capabilities_, {.registers = registers_,
                             .memory = ports.memory,
                             .messages = ports.messages,
                             .invalidator = invalidator_,
                             .faults = fault_log_,
                             .counters = counters_}) {}

void Unit::set_address_width(unsigned width) {
    properties_.address_width = width;
    capabilities_ = capabilities_of(properties_);
    registers_.set_capabilities(capabilities_);
    context_tables_.set_rules(rules_of(properties_));
}

// ---- Registers ----

std::uint64_t Unit::mmio_read(std::uint32_t offset, unsigned size) const {
    return RegisterFile::is_valid_access(offset, size) ? registers_.software_read(offset, size) : 0;
}

void Unit::mmio_write(std::uint32_t offset, std::uint64_t value, unsigned size) {
    if (!RegisterFile::is_valid_access(offset, size)) {
        return;
    }
    if (size == 8 && !registers_.is_wide(offset)) {
        write_register(offset, spec::low_word(value), 4);
        write_register(offset + kUpperWord, spec::high_word(value), 4);
        return;
    }
    write_register(offset, value, size);
}

void Unit::write_register(std::uint32_t offset, std::uint64_t value, unsigned size) {
    if (FaultLog::owns(offset)) {
        fault_log_.software_write(offset, value, size);
    } else {
        registers_.software_write(offset, value, size);
    }
    after_write(offset);
    // For commands, the upper half of a 64-bit register is a register of its own: ICC and IVT are
    // in the upper half, and software may write the halves one by one.
    if (size == 8) {
        after_write(offset + kUpperWord);
    }
}

void Unit::after_write(std::uint32_t offset) {
    switch (offset) {
        case spec::GlobalCommand::kOffset:
            command_written();
            break;
        case spec::ContextCommand::kOffset + kUpperWord:
            context_command_written();
            break;
        case spec::IotlbInvalidate::kOffset + kUpperWord:
            iotlb_command_written();
            break;
        case spec::InvalidationQueueTail::kOffset:
            counters_.queue.tail_writes.add();
            queue_.run();
            break;
        case spec::FaultStatus::kOffset:
            // Clearing IQE lets the queue go on.
            queue_.run();
            break;
        case spec::InvalidationCompletionStatus::kOffset:
            queue_.completion_status_written();
            break;
        case spec::InvalidationEventControl::kOffset:
            queue_.completion_control_written();
            break;
        default:
            break;
    }
}

bool Unit::has_work() const {
    return !caught_up() || (may_complete() && (pending_.any() || queue_.may_fetch()));
}

void Unit::resume() {
    complete_commands();
    queue_.run();
}

// ---- Reset and migration ----

void Unit::reset() {
    fault_log_.reset();
    queue_.restored();
    adopt(0, 0);
}

SavedState Unit::save() const {
    SavedState state;
    fault_log_.save(state);
    // Commands that wait are not part of the state. The unit that restores it carries everything
    // out before its guest runs, so that guest may see them done.
    RegisterFile registers(capabilities_);
    registers.restore(state.registers);
    show_done(registers, pending_);
    state.registers = registers.save();
    state.root_table =
        TranslationFields::RootTable::get(translation_.load(std::memory_order_relaxed)).value();
    state.interrupt_table = interrupts_.load(std::memory_order_relaxed) & InterruptFields::kTable;
    return state;
}

bool Unit::restore(const SavedState& state) {
    using Table = spec::InterruptTableAddress;
    using Root = spec::RootTableAddress;
    const std::uint64_t table_bits =
        (Table::Address::kMask & capabilities_.host_address_mask) | Table::Size::kMask |
        (capabilities_.extended_interrupt_mode() ? Table::ExtendedMode::kMask : 0);
    const std::uint64_t root_bits = Root::Address::kMask & capabilities_.host_address_mask;
    if (state.version != SavedState::kVersion || !registers_.accepts(state.registers) ||
        (state.root_table & ~root_bits) != 0 || (state.interrupt_table & ~table_bits) != 0 ||
        state.next_fault_record >= spec::FaultRecord::kCount) {
        return false;
    }
    RegisterFile restored(capabilities_);
    restored.restore(state.registers);
    if (!properties_.dma_translation &&
        spec::GlobalStatus::Translation::get(restored.get<spec::GlobalStatus>())) {
        return false;
    }
    fault_log_.restore(state);
    queue_.restored();
    using Status = spec::GlobalStatus;
    const std::uint64_t status = registers_.get<Status>();
    TranslationState translation = state.root_table;
    TranslationFields::On::set(translation, Status::Translation::get(status));
    InterruptState interrupts = state.interrupt_table;
    InterruptFields::RemappingOn::set(interrupts, Status::InterruptRemapping::get(status));
    InterruptFields::CompatibilityAllowed::set(interrupts,
                                               Status::CompatibilityInterrupts::get(status));
    adopt(translation, interrupts);
    return true;
}

// Puts `translation` and `interrupts` in force, whatever was in force before. Tells the observer in
// any case: after a reset or a restore the observer knows nothing.
void Unit::adopt(TranslationState translation, InterruptState interrupts) {
    pending_ = {};
    translation_.store(translation, std::memory_order_seq_cst);
    invalidator_.drop_everything();
    if (observer_ != nullptr) {
        observer_->batch_begin();
        observer_->translation_changed(TranslationFields::On::get(translation));
        invalidator_.settle();
        observer_->batch_end();
    }
    change_interrupts(interrupts);
}

}  // namespace umbra::vtd
