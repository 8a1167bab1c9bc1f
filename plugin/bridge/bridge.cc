// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/bridge/bridge.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>

#include "plugin/bridge/guest_ram.h"
#include "plugin/bridge/shadow_seam.h"
#include "plugin/bridge/snapshot.h"
#include "plugin/bridge/verification_json.h"
#include "plugin/shadow/clock.h"
#include "plugin/shadow/manager.h"
#include "plugin/shadow/options.h"
#include "plugin/shadow/unit_contexts.h"
#include "plugin/telemetry/json.h"
#include "plugin/telemetry/wire.h"
#include "plugin/vtd/unit.h"

namespace {

using umbra::GuestRam;
using umbra::Iova;
using umbra::SourceId;
namespace shadow = umbra::shadow;
namespace vtd = umbra::vtd;

static_assert(UMBRA_REGISTER_SPACE == vtd::kRegisterSpace);
static_assert(UMBRA_SAVED_REGISTER_BYTES == vtd::SavedState::kRegisterBytes);
static_assert(UMBRA_ACCESS_READ == static_cast<int>(umbra::Access::read));
static_assert(UMBRA_ACCESS_WRITE == static_cast<int>(umbra::Access::write));

class PlatformMessages final : public vtd::MessageSink {
  public:
    explicit PlatformMessages(const UmbraPlatform& platform) : platform_(platform) {}

    void send(std::uint64_t address, std::uint32_t data) override {
        platform_.send_message(platform_.opaque, address, data);
    }

  private:
    const UmbraPlatform& platform_;
};

UmbraScope to_c(const vtd::Invalidation& invalidation) {
    // In the order of vtd::InvalidationKind; those of interrupt entries have no scope.
    constexpr UmbraScopeKind kKinds[vtd::kInvalidationKinds] = {
        UMBRA_SCOPE_GLOBAL, UMBRA_SCOPE_DOMAIN, UMBRA_SCOPE_DEVICE,
        UMBRA_SCOPE_GLOBAL, UMBRA_SCOPE_DOMAIN, UMBRA_SCOPE_PAGES,
        UMBRA_SCOPE_PAGES,  UMBRA_SCOPE_GLOBAL, UMBRA_SCOPE_GLOBAL};
    return {
        .kind = kKinds[static_cast<std::size_t>(invalidation.kind)],
        .domain = static_cast<std::uint16_t>(invalidation.domain),
        .source = invalidation.devices.source().value(),
        .function_mask = invalidation.devices.ignored_bits(),
        .first = invalidation.range.first.value(),
        .last = invalidation.range.last.value(),
    };
}

// Hands the unit's invalidations on, to the shadow first: it switches the view of the devices that
// it maps for itself, and the platform that of all others. Invalidations of interrupt entries are
// gathered: QEMU refreshes every route at each, so one call for all before the guest sees them
// completed is right and enough.
class UnitObserver final : public vtd::InvalidationObserver {
  public:
    UnitObserver(shadow::Manager& manager, umbra::OperatorEvents& events,
                 const UmbraPlatform& platform)
        : manager_(manager), events_(events), platform_(platform) {}

    void invalidated(const vtd::Invalidation& invalidation) override {
        manager_.invalidated(invalidation);
        const UmbraScope scope = to_c(invalidation);
        switch (invalidation.kind) {
            case vtd::InvalidationKind::context_global:
            case vtd::InvalidationKind::context_domain:
            case vtd::InvalidationKind::context_device:
                platform_.contexts_changed(platform_.opaque, &scope);
                break;
            case vtd::InvalidationKind::iotlb_global:
            case vtd::InvalidationKind::iotlb_domain:
            case vtd::InvalidationKind::iotlb_page:
                platform_.iotlb_changed(platform_.opaque, &scope);
                break;
            case vtd::InvalidationKind::device_tlb:
                platform_.device_tlb_changed(platform_.opaque, scope.source, scope.first,
                                             scope.last);
                break;
            case vtd::InvalidationKind::interrupt_global:
            case vtd::InvalidationKind::interrupt_index:
                interrupt_entries_changed_ = true;
                break;
        }
    }

    void translation_changed(bool enabled) override {
        manager_.translation_changed(enabled);
        platform_.translation_changed(platform_.opaque);
    }
    void interrupt_remapping_changed(bool /*enabled*/) override {
        platform_.interrupt_remapping_changed(platform_.opaque);
    }

    void batch_begin() override { manager_.batch_begin(); }
    void barrier() override {
        manager_.barrier();
        if (interrupt_entries_changed_) {
            interrupt_entries_changed_ = false;
            platform_.interrupt_entries_changed(platform_.opaque);
        }
    }
    void batch_end() override { manager_.batch_end(); }
    [[nodiscard]] bool caught_up() const override {
        return manager_.caught_up() && !events_.stopping();
    }
    [[nodiscard]] bool has_time() const override { return manager_.has_time(); }

  private:
    shadow::Manager& manager_;
    umbra::OperatorEvents& events_;
    const UmbraPlatform& platform_;
    bool interrupt_entries_changed_ = false;
};

vtd::UnitProperties from_c(const UmbraUnitProperties& properties) {
    return {
        .caching_mode = properties.caching_mode,
        .address_width = properties.address_width,
        .host_address_width = properties.host_address_width,
        .interrupt_remapping = properties.interrupt_remapping,
        .extended_interrupt_mode = properties.extended_interrupt_mode,
        .pass_through = properties.pass_through,
        .device_iotlb = properties.device_iotlb,
        .snoop_control = properties.snoop_control,
    };
}

shadow::Options from_c(const UmbraShadowOptions& options) {
    shadow::Options made;
    made.coalesce = options.coalesce;
    made.on_map_error =
        options.stop_on_map_error ? shadow::OnMapError::stop : shadow::OnMapError::report;
    made.max_mappings = options.max_mappings;
    made.max_tables_domain = options.max_tables;
    made.slice_ns = std::uint64_t{options.slice_us} * 1000;
    made.max_tables_unit = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(std::uint64_t{options.max_tables} * 2, UINT32_MAX));
    return made;
}

// For C: freed with umbra_string_free().
char* copy_of(const std::string& text) {
    auto copy = std::make_unique<char[]>(text.size() + 1);
    std::memcpy(copy.get(), text.c_str(), text.size() + 1);
    return copy.release();
}

template <class Clock>
std::uint64_t nanoseconds_of() {
    const auto since = Clock::now().time_since_epoch();
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(since).count());
}

UmbraTranslation to_c(const vtd::Translation& translation) {
    return {
        .ok = translation.ok,
        .access = static_cast<std::uint8_t>(translation.granted),
        .address = translation.address.value(),
        .page_mask = translation.page_mask,
    };
}

UmbraInterrupt to_c(const vtd::InterruptResult& result) {
    UmbraInterrupt interrupt{};
    interrupt.ok = result.ok;
    if (result.ok && result.remapped) {
        interrupt.remapped = true;
        interrupt.logical_destination = result.logical_destination;
        interrupt.redirection_hint = result.redirection_hint;
        interrupt.level_triggered = result.level_triggered;
        interrupt.vector = result.vector;
        interrupt.delivery_mode = static_cast<std::uint8_t>(result.delivery);
        interrupt.destination = result.destination;
    }
    return interrupt;
}

}  // namespace

struct UmbraUnit {
    UmbraUnit(const UmbraUnitProperties& properties, const UmbraShadowOptions& options,
              const UmbraPlatform& outside)
        : platform(outside),
          memory(outside.write_memory, outside.opaque),
          messages(platform),
          // Keeps the address; nothing is invalidated before the guest runs.
          unit(from_c(properties), {.memory = memory, .messages = messages, .observer = &observer}),
          ram(memory),
          events(platform),
          contexts(unit),
          manager(from_c(options),
                  vtd::EntryFormat(properties.host_address_width, properties.snoop_control),
                  {.memory = memory,
                   .ram = ram,
                   .contexts = contexts,
                   .events = events,
                   .clock = clock}),
          observer(manager, events, platform) {}

    const UmbraPlatform platform;
    GuestRam memory;
    PlatformMessages messages;
    vtd::Unit unit;
    umbra::RamRuns ram;
    umbra::OperatorEvents events;
    shadow::SteadyClock clock;
    shadow::UnitContexts contexts;
    shadow::Manager manager;
    UnitObserver observer;
    std::uint64_t counting_since_ns = nanoseconds_of<std::chrono::steady_clock>();
};

namespace {

umbra::telemetry::snapshot::Snapshot snapshot_of(const UmbraUnit& unit,
                                                 const UmbraSnapshotStamp& stamp) {
    return umbra::take_snapshot({.unit = stamp.unit,
                                 .sequence = stamp.sequence,
                                 .interval_ns = stamp.interval_ns,
                                 .dropped = stamp.dropped,
                                 .taken_unix_ns = nanoseconds_of<std::chrono::system_clock>(),
                                 .taken_ns = nanoseconds_of<std::chrono::steady_clock>(),
                                 .counting_since_ns = unit.counting_since_ns},
                                unit.unit.counters(), unit.manager);
}

}  // namespace

extern "C" {

UmbraRamMap* umbra_ram_map_new(const UmbraRamRange* ranges, size_t count) noexcept {
    return std::make_unique<UmbraRamMap>(std::span(ranges, count)).release();
}

void umbra_ram_map_free(UmbraRamMap* map) noexcept {
    const std::unique_ptr<UmbraRamMap> owned(map);
}

const char* umbra_unit_properties_error(const UmbraUnitProperties* properties) noexcept {
    return from_c(*properties).error();
}

UmbraUnit* umbra_unit_new(const UmbraUnitProperties* properties, const UmbraShadowOptions* options,
                          const UmbraPlatform* platform) noexcept {
    return std::make_unique<UmbraUnit>(*properties, *options, *platform).release();
}

void umbra_unit_free(UmbraUnit* unit) noexcept {
    const std::unique_ptr<UmbraUnit> owned(unit);
}

UmbraRamMap* umbra_unit_swap_ram_map(UmbraUnit* unit, UmbraRamMap* map) noexcept {
    UmbraRamMap* previous = unit->memory.swap(map);
    // Host memory that went away must not stay mapped for a device.
    unit->manager.ram_changed();
    return previous;
}

uint64_t umbra_unit_mmio_read(const UmbraUnit* unit, uint32_t offset, unsigned size) noexcept {
    return unit->unit.mmio_read(offset, size);
}

void umbra_unit_mmio_write(UmbraUnit* unit, uint32_t offset, uint64_t value,
                           unsigned size) noexcept {
    unit->unit.mmio_write(offset, value, size);
}

void umbra_unit_reset(UmbraUnit* unit) noexcept {
    // The guest that was not to see anything completed is gone.
    unit->events.stopped();
    unit->unit.reset();
}

bool umbra_unit_has_work(const UmbraUnit* unit) noexcept {
    return unit->unit.has_work();
}

bool umbra_unit_work(UmbraUnit* unit) noexcept {
    if (unit->manager.run()) {
        unit->unit.resume();
    }
    return unit->unit.has_work();
}

bool umbra_unit_machine_stopping(const UmbraUnit* unit) noexcept {
    return unit->events.stopping();
}

void umbra_unit_machine_stopped(UmbraUnit* unit) noexcept {
    unit->events.stopped();
}

void umbra_unit_machine_goes_on(UmbraUnit* unit) noexcept {
    unit->manager.machine_goes_on();
}

UmbraTranslation umbra_unit_translate(UmbraUnit* unit, uint16_t source, uint64_t iova,
                                      unsigned wanted) noexcept {
    return to_c(
        unit->unit.translate(SourceId(source), Iova(iova), static_cast<umbra::Access>(wanted & 3)));
}

UmbraTranslation umbra_unit_lookup(const UmbraUnit* unit, uint16_t source, uint64_t iova) noexcept {
    return to_c(unit->unit.lookup(SourceId(source), Iova(iova)));
}

UmbraInterrupt umbra_unit_remap(UmbraUnit* unit, uint16_t source, uint64_t address,
                                uint32_t data) noexcept {
    return to_c(unit->unit.remap(SourceId(source), address, data));
}

UmbraInterrupt umbra_unit_lookup_interrupt(const UmbraUnit* unit, uint16_t source, uint64_t address,
                                           uint32_t data) noexcept {
    return to_c(unit->unit.lookup_interrupt(SourceId(source), address, data));
}

UmbraContext umbra_unit_context(const UmbraUnit* unit, uint16_t source) noexcept {
    const vtd::ContextLookup context = unit->unit.context_of(SourceId(source));
    if (!context.present) {
        return {};
    }
    return {
        .present = true,
        .pass_through = context.type == vtd::TranslationType::pass_through,
        .domain = static_cast<std::uint16_t>(context.domain),
    };
}

bool umbra_unit_translation_enabled(const UmbraUnit* unit) noexcept {
    return unit->unit.translation_enabled();
}

bool umbra_unit_interrupt_remapping_enabled(const UmbraUnit* unit) noexcept {
    return unit->unit.interrupt_remapping_enabled();
}

UmbraShadowDevice* umbra_shadow_add(UmbraUnit* unit, const UmbraHostPort* port) noexcept {
    auto device = std::make_unique<UmbraShadowDevice>(*port);
    unit->manager.add_device(*device);
    return device.release();
}

void umbra_shadow_remove(UmbraUnit* unit, UmbraShadowDevice* device) noexcept {
    const std::unique_ptr<UmbraShadowDevice> owned(device);
    unit->manager.remove_device(*owned);
}

void umbra_shadow_sources_changed(UmbraUnit* unit) noexcept {
    unit->manager.sources_changed();
}

void umbra_shadow_settle(UmbraUnit* unit) noexcept {
    unit->manager.settle();
}

void umbra_shadow_replay(UmbraUnit* unit, UmbraShadowDevice* device) noexcept {
    unit->manager.replay(*device);
}

char* umbra_unit_verify(const UmbraUnit* unit) noexcept {
    return copy_of(umbra::verification_json(unit->manager.verify()));
}

void umbra_unit_save(const UmbraUnit* unit, UmbraSavedState* state) noexcept {
    const vtd::SavedState saved = unit->unit.save();
    *state = {
        .version = saved.version,
        .next_fault_record = saved.next_fault_record,
        .root_table = saved.root_table,
        .interrupt_table = saved.interrupt_table,
        .registers = {},
    };
    std::copy(saved.registers.begin(), saved.registers.end(), state->registers);
}

bool umbra_unit_restore(UmbraUnit* unit, const UmbraSavedState* state) noexcept {
    vtd::SavedState saved;
    saved.version = state->version;
    saved.root_table = state->root_table;
    saved.interrupt_table = state->interrupt_table;
    saved.next_fault_record = state->next_fault_record;
    std::copy(std::begin(state->registers), std::end(state->registers), saved.registers.begin());
    unit->events.stopped();
    return unit->unit.restore(saved);
}

char* umbra_unit_statistics(const UmbraUnit* unit, const UmbraSnapshotStamp* stamp) noexcept {
    const auto snapshot = snapshot_of(*unit, *stamp);
    return copy_of(umbra::telemetry::to_json(umbra::telemetry::snapshot::record(snapshot)));
}

char* umbra_unit_snapshot(const UmbraUnit* unit, const UmbraSnapshotStamp* stamp,
                          size_t* size) noexcept {
    const auto snapshot = snapshot_of(*unit, *stamp);
    const std::string bytes =
        umbra::telemetry::encode_delimited(umbra::telemetry::snapshot::record(snapshot));
    *size = bytes.size();
    return copy_of(bytes);
}

void umbra_unit_clear_statistics(UmbraUnit* unit) noexcept {
    unit->unit.clear_counters();
    unit->manager.clear_counters();
    unit->counting_since_ns = nanoseconds_of<std::chrono::steady_clock>();
}

void umbra_string_free(char* string) noexcept {
    const std::unique_ptr<char[]> owned(string);
}

}  // extern "C"
