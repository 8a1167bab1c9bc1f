// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/bridge/requests.h"

#include "plugin/bridge/assembly.h"
#include "plugin/bridge/convert.h"

using umbra::Access;
using umbra::Iova;
using umbra::SourceId;
using umbra::bridge::to_c;

extern "C" {

UmbraTranslation umbra_unit_translate(UmbraUnit* unit, uint16_t source, uint64_t iova,
                                      unsigned wanted) noexcept {
    return to_c(
        unit->unit.translate(SourceId(source), Iova(iova), static_cast<Access>(wanted & 3)));
}

UmbraTranslation umbra_unit_lookup(const UmbraUnit* unit, uint16_t source, uint64_t iova) noexcept {
    return to_c(unit->unit.lookup(SourceId(source), Iova(iova)));
}

UmbraInterrupt umbra_unit_remap(UmbraUnit* unit, uint16_t source, uint64_t address,
                                uint32_t data) noexcept {
    return to_c(unit->unit.remap(SourceId(source), address, data));
}

UmbraInterrupt umbra_unit_route_interrupt(const UmbraUnit* unit, uint16_t source, uint64_t address,
                                          uint32_t data) noexcept {
    UmbraInterrupt route = to_c(unit->unit.lookup_interrupt(SourceId(source), address, data));
    if (!route.ok) {
        route = {};
        route.remapped = true;
        route.logical_destination = true;
    }
    return route;
}

UmbraContext umbra_unit_context(const UmbraUnit* unit, uint16_t source) noexcept {
    return to_c(unit->unit.context_of(SourceId(source)));
}

bool umbra_unit_translation_enabled(const UmbraUnit* unit) noexcept {
    return unit->unit.translation_enabled();
}

bool umbra_unit_interrupt_remapping_enabled(const UmbraUnit* unit) noexcept {
    return unit->unit.interrupt_remapping_enabled();
}

}  // extern "C"
