// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/unit.h"

#include <utility>

#include "plugin/vtd/interrupt_range.h"
#include "plugin/vtd/spec/registers.h"

namespace umbra::vtd {
namespace {

namespace offset = spec::offset;
namespace global = spec::global;

// Unit::TranslationState: the latched root table address, and whether translation is on in a bit
// that the address leaves free.
constexpr std::uint64_t kTranslationOn = 1u << 0;

// Unit::InterruptState: the latched IRTA value, and in bits that it leaves free whether remapping
// is on and whether compatibility-format interrupts pass.
constexpr std::uint64_t kRemappingOn = 1u << 4;
constexpr std::uint64_t kCompatibilityAllowed = 1u << 5;

// An unchanged address is valid for as much as can be said without reaching into or out of the
// interrupt address range, which is 1 MiB in size and alignment.
constexpr std::uint64_t kUnchangedMask = kInterruptRangeLast - kInterruptRangeFirst;

// Largest block around `iova` within `page_mask` that holds no interrupt address. `iova` is none.
constexpr std::uint64_t clip_to_interrupt_range(Iova iova, std::uint64_t page_mask) {
    const bool overlaps = ((iova.value() ^ kInterruptRangeFirst) & ~page_mask) == 0;
    return overlaps && page_mask > kUnchangedMask ? kUnchangedMask : page_mask;
}

constexpr Translation unchanged(Iova iova) {
    Translation translation;
    translation.ok = true;
    translation.address = Gpa(iova.value());
    translation.page_mask = kUnchangedMask;
    translation.granted = Access::read_write;
    return translation;
}

constexpr Translation blocked(const ContextLookup& context, FaultReason reason) {
    Translation translation;
    translation.domain = context.domain;
    translation.reason = reason;
    translation.fault_processing_disabled = context.fault_processing_disabled;
    return translation;
}

constexpr Translation blocked_interrupt_address() {
    Translation translation;
    translation.reason = FaultReason::interrupt_request_reserved;
    return translation;
}

constexpr Translation translated(const ContextLookup& context, Iova iova, Gpa address,
                                 std::uint64_t page_mask, Access granted) {
    Translation translation;
    translation.ok = true;
    translation.address = address;
    translation.page_mask = clip_to_interrupt_range(iova, page_mask);
    translation.granted = granted;
    translation.domain = context.domain;
    return translation;
}

constexpr Gpa root_table_of(std::uint64_t state) {
    return Gpa(state & spec::root_table_address::kAddress);
}

constexpr InterruptTable interrupt_table_of(std::uint64_t state) {
    using namespace spec::interrupt_table_address;
    return {.address = Gpa(state & kAddress),
            .entries = std::uint32_t{2} << (state & kSize),
            .extended_mode = (state & kExtendedMode) != 0,
            .compatibility_allowed = (state & kCompatibilityAllowed) != 0};
}

std::optional<Invalidation> decode_context_command(std::uint64_t command) {
    using namespace spec::context_command;
    const auto domain = static_cast<DomainId>(command >> kDomainShift);
    switch (command >> kRequestedShift & 3) {
        case spec::granularity::kGlobal:
            return Invalidation::context_global();
        case spec::granularity::kDomain:
            return Invalidation::context_domain(domain);
        case spec::granularity::kDeviceOrPage:
            return Invalidation::context_device(
                domain, SourceMatch(SourceId(static_cast<std::uint16_t>(command >> kSourceShift)),
                                    static_cast<unsigned>(command >> kFunctionMaskShift & 3)));
        default:
            return std::nullopt;
    }
}

// `address_fields` is the Invalidate Address register.
std::optional<Invalidation> decode_iotlb_command(std::uint64_t command,
                                                 std::uint64_t address_fields) {
    using namespace spec::iotlb_invalidate;
    const auto domain = static_cast<DomainId>(command >> kDomainShift);
    switch (command >> kRequestedShift & 3) {
        case spec::granularity::kGlobal:
            return Invalidation::iotlb_global();
        case spec::granularity::kDomain:
            return Invalidation::iotlb_domain(domain);
        case spec::granularity::kDeviceOrPage:
            return decode_pages(domain, address_fields);
        default:
            return std::nullopt;
    }
}

// True for a read fault. A request that needs both accesses is reported by what it was refused.
constexpr bool is_read_fault(Access wanted, FaultReason reason) {
    return reason == FaultReason::read_denied ||
           (reason != FaultReason::write_denied && !allows(wanted, Access::write));
}

}  // namespace

Unit::Unit(const UnitProperties& properties, Ports ports)
    : properties_(properties),
      capabilities_(capabilities_of(properties)),
      observer_(ports.observer),
      registers_(capabilities_),
      context_tables_(ports.memory, {.host_address_width = properties.host_address_width,
                                     .max_levels = properties.address_width == 48 ? 4U : 3U,
                                     .pass_through = properties.pass_through,
                                     .device_iotlb = properties.device_iotlb}),
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

// ---- Registers ----

std::uint64_t Unit::mmio_read(std::uint32_t offset, unsigned size) const {
    return RegisterFile::is_valid_access(offset, size) ? registers_.software_read(offset, size) : 0;
}

void Unit::mmio_write(std::uint32_t offset, std::uint64_t value, unsigned size) {
    if (!RegisterFile::is_valid_access(offset, size)) {
        return;
    }
    if (size == 8 && !registers_.is_wide(offset)) {
        write_register(offset, value & 0xffffffff, 4);
        write_register(offset + 4, value >> 32, 4);
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
    // A 64-bit register's upper half is a register of its own as far as commands go: ICC and IVT
    // are in it, and software may write the halves one by one.
    if (size == 8) {
        after_write(offset + 4);
    }
}

void Unit::after_write(std::uint32_t offset) {
    switch (offset) {
        case offset::kGlobalCommand:
            command_written();
            break;
        case offset::kContextCommand + 4:
            context_command_written();
            break;
        case offset::kIotlbInvalidate + 4:
            iotlb_command_written();
            break;
        case offset::kInvalidationQueueTail:
            counters_.queue.tail_writes.add();
            queue_.run();
            break;
        case offset::kFaultStatus:
            // Clearing IQE lets the queue go on.
            queue_.run();
            break;
        case offset::kInvalidationCompletionStatus:
            queue_.completion_status_written();
            break;
        case offset::kInvalidationEventControl:
            queue_.completion_control_written();
            break;
        default:
            break;
    }
}

// ---- Global commands ----

void Unit::command_written() {
    const std::uint32_t command = registers_.get32(offset::kGlobalCommand);
    registers_.set32(offset::kGlobalCommand, 0);
    const std::uint32_t changed =
        command ^ (registers_.get32(offset::kGlobalStatus) | pending_.set);

    // Software gives one command at a time (11.4.4). If it gives several, pointers come first, so
    // that nothing is switched on with an old one.
    if ((command & global::kRootTablePointer) != 0) {
        set_root_table();
    }
    if ((command & global::kInterruptTablePointer) != 0) {
        set_interrupt_table();
    }
    if ((changed & global::kQueuedInvalidation) != 0) {
        enable_queue((command & global::kQueuedInvalidation) != 0);
    }
    if ((changed & global::kTranslation) != 0) {
        enable_translation((command & global::kTranslation) != 0);
    }
    if ((changed & global::kInterruptRemapping) != 0) {
        enable_interrupt_remapping((command & global::kInterruptRemapping) != 0);
    }
    if ((changed & global::kCompatibilityInterrupts) != 0) {
        allow_compatibility_interrupts((command & global::kCompatibilityInterrupts) != 0);
    }
    complete_commands();
}

void Unit::complete_commands() {
    if (!pending_.any() || !caught_up()) {
        return;
    }
    // Granularity is done as it was asked for.
    const auto complete = [this](std::uint32_t offset, std::uint64_t invalidate,
                                 unsigned requested_shift, unsigned actual_shift) {
        const std::uint64_t command = registers_.get64(offset);
        const std::uint64_t requested = command >> requested_shift & 3;
        registers_.set64(offset, (command & ~invalidate & ~(std::uint64_t{3} << actual_shift)) |
                                     requested << actual_shift);
    };
    const PendingCommands done = std::exchange(pending_, {});
    set_status(done.set, true);
    if (done.context) {
        using namespace spec::context_command;
        complete(offset::kContextCommand, kInvalidate, kRequestedShift, kActualShift);
    }
    if (done.iotlb) {
        using namespace spec::iotlb_invalidate;
        complete(offset::kIotlbInvalidate, kInvalidate, kRequestedShift, kActualShift);
    }
}

void Unit::set_status(std::uint32_t bits, bool on) {
    const std::uint32_t status = registers_.get32(offset::kGlobalStatus);
    registers_.set32(offset::kGlobalStatus, on ? status | bits : status & ~bits);
}

void Unit::set_root_table() {
    const TranslationState state = translation_.load(std::memory_order_relaxed);
    set_status(global::kRootTablePointer, false);
    pending_.set |= global::kRootTablePointer;
    change_translation(registers_.get64(offset::kRootTableAddress) | (state & kTranslationOn));
}

void Unit::enable_translation(bool on) {
    const TranslationState state = translation_.load(std::memory_order_relaxed);
    if (on) {
        pending_.set |= global::kTranslation;
    } else {
        pending_.set &= ~global::kTranslation;
        set_status(global::kTranslation, false);
    }
    change_translation((state & ~kTranslationOn) | (on ? kTranslationOn : 0));
}

// Software sees the command's status change only when everything cached is gone and the observer
// has followed. (Translation goes off at once: nothing is to be mapped then.)
void Unit::change_translation(TranslationState state) {
    const TranslationState before = translation_.load(std::memory_order_relaxed);
    translation_.store(state, std::memory_order_seq_cst);
    invalidator_.drop_everything();
    const bool on = (state & kTranslationOn) != 0;
    const bool was_on = (before & kTranslationOn) != 0;
    if (observer_ != nullptr && (on || was_on)) {
        observer_->batch_begin();
        observer_->translation_changed(on);
        observer_->barrier();
        observer_->batch_end();
    }
}

void Unit::set_interrupt_table() {
    const InterruptState state = interrupts_.load(std::memory_order_relaxed);
    change_interrupts(registers_.get64(offset::kInterruptRemappingTableAddress) |
                      (state & (kRemappingOn | kCompatibilityAllowed)));
    set_status(global::kInterruptTablePointer, true);
}

void Unit::enable_interrupt_remapping(bool on) {
    const InterruptState state = interrupts_.load(std::memory_order_relaxed);
    change_interrupts((state & ~kRemappingOn) | (on ? kRemappingOn : 0));
    set_status(global::kInterruptRemapping, on);
}

void Unit::allow_compatibility_interrupts(bool on) {
    const InterruptState state = interrupts_.load(std::memory_order_relaxed);
    change_interrupts((state & ~kCompatibilityAllowed) | (on ? kCompatibilityAllowed : 0));
    set_status(global::kCompatibilityInterrupts, on);
}

void Unit::change_interrupts(InterruptState state) {
    interrupts_.store(state, std::memory_order_seq_cst);
    if (observer_ != nullptr) {
        observer_->batch_begin();
        observer_->interrupt_remapping_changed((state & kRemappingOn) != 0);
        observer_->barrier();
        observer_->batch_end();
    }
}

void Unit::enable_queue(bool on) {
    set_status(global::kQueuedInvalidation, on);
    if (on) {
        queue_.run();
    } else {
        queue_.disabled();
    }
}

// ---- Register-based invalidation ----

void Unit::context_command_written() {
    using namespace spec::context_command;
    const std::uint64_t command = registers_.get64(offset::kContextCommand);
    if ((command & kInvalidate) == 0) {
        return;
    }
    if (carry_out(decode_context_command(command))) {
        pending_.context = true;
        complete_commands();
    } else {
        registers_.set64(offset::kContextCommand,
                         (command & ~kInvalidate & ~(std::uint64_t{3} << kActualShift)) |
                             std::uint64_t{spec::granularity::kReserved} << kActualShift);
    }
}

void Unit::iotlb_command_written() {
    using namespace spec::iotlb_invalidate;
    const std::uint64_t command = registers_.get64(offset::kIotlbInvalidate);
    if ((command & kInvalidate) == 0) {
        return;
    }
    if (carry_out(decode_iotlb_command(command, registers_.get64(offset::kInvalidateAddress)))) {
        pending_.iotlb = true;
        complete_commands();
    } else {
        registers_.set64(offset::kIotlbInvalidate,
                         (command & ~kInvalidate & ~(std::uint64_t{3} << kActualShift)) |
                             std::uint64_t{spec::granularity::kReserved} << kActualShift);
    }
}

// While the queue is on, software must not use the command registers. A command that is not valid,
// or comes then, is ignored and reported with the reserved value as actual granularity.
bool Unit::carry_out(const std::optional<Invalidation>& invalidation) {
    const bool queue_on =
        (registers_.get32(offset::kGlobalStatus) & global::kQueuedInvalidation) != 0;
    if (!invalidation || queue_on) {
        counters_.register_commands_refused.add();
        return false;
    }
    invalidator_.batch_begin();
    invalidator_.apply(*invalidation, InvalidationPath::registers);
    invalidator_.barrier();
    invalidator_.batch_end();
    return true;
}

bool Unit::has_work() const {
    return pending_.any() || queue_.may_fetch() || !caught_up();
}

void Unit::resume() {
    complete_commands();
    queue_.run();
}

// ---- Reset and migration ----

void Unit::reset() {
    fault_log_.reset();
    adopt(0, 0);
}

SavedState Unit::save() const {
    SavedState state;
    fault_log_.save(state);
    state.root_table = root_table_of(translation_.load(std::memory_order_relaxed)).value();
    state.interrupt_table =
        interrupts_.load(std::memory_order_relaxed) & ~(kRemappingOn | kCompatibilityAllowed);
    return state;
}

bool Unit::restore(const SavedState& state) {
    using namespace spec::interrupt_table_address;
    const std::uint64_t table_bits = (kAddress & capabilities_.host_address_mask) | kSize |
                                     (capabilities_.extended_interrupt_mode() ? kExtendedMode : 0);
    const std::uint64_t root_bits =
        spec::root_table_address::kAddress & capabilities_.host_address_mask;
    if (state.version != SavedState::kVersion || !registers_.accepts(state.registers) ||
        (state.root_table & ~root_bits) != 0 || (state.interrupt_table & ~table_bits) != 0 ||
        state.next_fault_record >= spec::kFaultRecords) {
        return false;
    }
    fault_log_.restore(state);
    const std::uint32_t status = registers_.get32(offset::kGlobalStatus);
    adopt(state.root_table | ((status & global::kTranslation) != 0 ? kTranslationOn : 0),
          state.interrupt_table | ((status & global::kInterruptRemapping) != 0 ? kRemappingOn : 0) |
              ((status & global::kCompatibilityInterrupts) != 0 ? kCompatibilityAllowed : 0));
    return true;
}

// Puts `translation` and `interrupts` in force, whatever was before, and tells the observer in any
// case: after a reset or a restore it knows nothing.
void Unit::adopt(TranslationState translation, InterruptState interrupts) {
    pending_ = {};
    translation_.store(translation, std::memory_order_seq_cst);
    invalidator_.drop_everything();
    if (observer_ != nullptr) {
        observer_->batch_begin();
        observer_->translation_changed((translation & kTranslationOn) != 0);
        invalidator_.settle();
        observer_->batch_end();
    }
    change_interrupts(interrupts);
}

// ---- DMA ----

bool Unit::translation_enabled() const {
    return (translation_.load(std::memory_order_acquire) & kTranslationOn) != 0;
}

Translation Unit::translate(SourceId source, Iova iova, Access wanted) {
    // Taken before anything is read, so that what is read now cannot be cached if an invalidation
    // comes in between.
    const Iotlb::Generation iotlb_generation = iotlb_.generation();
    const ContextCache::Generation context_generation = context_cache_.generation();
    const TranslationState state = translation_.load(std::memory_order_acquire);
    if ((state & kTranslationOn) == 0) {
        return unchanged(iova);
    }
    if (is_interrupt_address(iova)) [[unlikely]] {
        // Faults of interrupt requests name an index; this request has none.
        return report(source, Iova(), wanted, blocked_interrupt_address());
    }
    const ContextLookup context = cached_context(state, source, context_generation);
    const Translation translation = context.is_second_stage()
                                        ? second_stage(context, iova, wanted, iotlb_generation)
                                        : without_second_stage(context, iova);
    if (!translation.ok) [[unlikely]] {
        if (context.present) {
            counters_.domains.at(context.domain).faults.add();
        }
        return report(source, iova, wanted, translation);
    }
    return translation;
}

ContextLookup Unit::cached_context(TranslationState state, SourceId source,
                                   ContextCache::Generation generation) {
    ContextLookup context = context_cache_.lookup(source);
    if (!context.present) [[unlikely]] {
        context = context_tables_.lookup(root_table_of(state), source);
        context_cache_.insert(source, context, generation);
    }
    return context;
}

Translation Unit::second_stage(const ContextLookup& context, Iova iova, Access wanted,
                               Iotlb::Generation generation) {
    DomainCounters& domain = counters_.domains.at(context.domain);
    const auto hit = iotlb_.lookup(context.domain, iova);
    if (hit && second_stage_.serves(hit->granted, wanted)) [[likely]] {
        domain.iotlb_hits.add();
        return translated(context, iova, hit->address, hit->page_mask, hit->granted);
    }
    domain.iotlb_misses.add();
    const WalkResult walk = second_stage_.walk(context.table, context.levels, iova, wanted);
    if (!walk.ok) {
        return blocked(context, walk.reason);
    }
    iotlb_.insert(context.domain, iova, walk, generation);
    return translated(context, iova, walk.address, walk.page_mask, walk.granted);
}

// A pass-through device, or one that has no valid context entry.
Translation Unit::without_second_stage(const ContextLookup& context, Iova iova) const {
    if (!context.present) {
        return blocked(context, context.reason);
    }
    if (iova.value() >> properties_.host_address_width != 0) {
        return blocked(context, FaultReason::beyond_address_width);
    }
    return translated(context, iova, Gpa(iova.value()), kUnchangedMask, Access::read_write);
}

Translation Unit::report(SourceId source, Iova iova, Access wanted, const Translation& blocked) {
    counters_.fault(blocked.reason).add();
    if (blocked.fault_processing_disabled) {
        counters_.faults.suppressed.add();
    } else {
        fault_log_.record({.source = source,
                           .reason = blocked.reason,
                           .information = iova.value(),
                           .read = is_read_fault(wanted, blocked.reason)});
    }
    return blocked;
}

Translation Unit::lookup(SourceId source, Iova iova) const {
    const ContextLookup context = context_of(source);
    if (context.translation_off) {
        return unchanged(iova);
    }
    if (is_interrupt_address(iova)) {
        return blocked_interrupt_address();
    }
    if (!context.is_second_stage()) {
        return without_second_stage(context, iova);
    }
    const WalkResult walk = second_stage_.find(context.table, context.levels, iova);
    return walk.ok ? translated(context, iova, walk.address, walk.page_mask, walk.granted)
                   : blocked(context, walk.reason);
}

ContextLookup Unit::context_of(SourceId source) const {
    const TranslationState state = translation_.load(std::memory_order_acquire);
    if ((state & kTranslationOn) == 0) {
        ContextLookup off;
        off.translation_off = true;
        return off;
    }
    return context_tables_.lookup(root_table_of(state), source);
}

// ---- Interrupts ----

bool Unit::interrupt_remapping_enabled() const {
    return (interrupts_.load(std::memory_order_acquire) & kRemappingOn) != 0;
}

InterruptResult Unit::lookup_interrupt(SourceId source, std::uint64_t address,
                                       std::uint32_t data) const {
    const InterruptState state = interrupts_.load(std::memory_order_acquire);
    if ((state & kRemappingOn) == 0) {
        return InterruptRemapper::unchanged(address, data);
    }
    return interrupt_remapper_.remap(interrupt_table_of(state), source, address, data);
}

InterruptResult Unit::remap(SourceId source, std::uint64_t address, std::uint32_t data) {
    const InterruptResult result = lookup_interrupt(source, address, data);
    if (!result.ok) [[unlikely]] {
        counters_.fault(result.reason).add();
        if (result.fault_processing_disabled) {
            counters_.faults.suppressed.add();
        } else {
            fault_log_.record({.source = source,
                               .reason = result.reason,
                               .information = std::uint64_t{result.index}
                                              << spec::fault_record::kInterruptIndexShift,
                               .read = false});
        }
    }
    return result;
}

}  // namespace umbra::vtd
