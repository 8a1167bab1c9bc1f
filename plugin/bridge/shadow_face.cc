// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/bridge/shadow.h"

#include <memory>

#include "plugin/bridge/assembly.h"
#include "plugin/bridge/shadow_device.h"

extern "C" {

UmbraShadowDevice* umbra_shadow_add(UmbraUnit* unit, const UmbraHostMapper* mapper) noexcept {
    auto device = std::make_unique<UmbraShadowDevice>(*mapper);
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

}  // extern "C"
