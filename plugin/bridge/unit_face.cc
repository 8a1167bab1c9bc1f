// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/bridge/unit.h"

#include <memory>

#include "plugin/bridge/assembly.h"
#include "plugin/bridge/convert.h"
#include "plugin/bridge/ram.h"

using umbra::bridge::from_c;
using umbra::bridge::to_c;

extern "C" {

const char* umbra_decide_extended_interrupt_mode(UmbraChoice eim, bool interrupt_remapping,
                                                 bool (*switch_on_wide_ids)(),
                                                 bool* enabled) noexcept {
    *enabled = eim != UMBRA_CHOICE_OFF && interrupt_remapping && switch_on_wide_ids();
    if (eim != UMBRA_CHOICE_ON || *enabled) {
        return nullptr;
    }
    return interrupt_remapping
               ? "eim=on needs KVM with x2APIC support and -M q35,kernel-irqchip=split; or set eim=off"
               : "eim=on needs intremap=on";
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

void umbra_unit_set_address_width(UmbraUnit* unit, unsigned width) noexcept {
    unit->unit.set_address_width(width);
}

UmbraRamMap* umbra_unit_swap_ram_map(UmbraUnit* unit, UmbraRamMap* map) noexcept {
    UmbraRamMap* previous = unit->memory.swap(map);
    // Host memory that went away must not stay mapped for a device.
    unit->manager.ram_changed();
    if (unit->unit.has_work()) {
        unit->platform.work_left(unit->platform.opaque);
    }
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

bool umbra_unit_holds_machine(const UmbraUnit* unit) noexcept {
    return unit->manager.holds_machine();
}

void umbra_unit_machine_goes_on(UmbraUnit* unit) noexcept {
    unit->manager.machine_goes_on();
}

void umbra_unit_set_stop_on_map_error(UmbraUnit* unit, bool stop) noexcept {
    unit->manager.set_on_map_error(stop ? umbra::shadow::OnMapError::stop
                                        : umbra::shadow::OnMapError::report);
}

unsigned umbra_unit_retry_delay_ms(UmbraUnit* unit) noexcept {
    return unit->manager.retry_delay_ms();
}

void umbra_unit_retry(UmbraUnit* unit) noexcept {
    unit->manager.retry();
}

void umbra_unit_save(const UmbraUnit* unit, UmbraSavedState* state) noexcept {
    *state = to_c(unit->unit.save());
}

bool umbra_unit_restore(UmbraUnit* unit, const UmbraSavedState* state) noexcept {
    return unit->unit.restore(from_c(*state));
}

}  // extern "C"
