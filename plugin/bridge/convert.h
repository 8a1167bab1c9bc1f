// SPDX-License-Identifier: GPL-2.0-or-later
//
// Values on their way over the boundary: from the structs of the C headers to the types of vtd and
// shadow, and back. A struct that both sides have consists of the same bytes, field by field;
// convert.cc checks that when it is compiled, and the conversion is a copy of the whole.
//
// Pure functions; any thread.
#pragma once

#include <bit>

#include "plugin/bridge/platform.h"
#include "plugin/bridge/requests.h"
#include "plugin/bridge/shadow.h"
#include "plugin/bridge/unit.h"
#include "plugin/shadow/device.h"
#include "plugin/shadow/host_mapper.h"
#include "plugin/shadow/options.h"
#include "plugin/vtd/invalidation.h"
#include "plugin/vtd/unit.h"

namespace umbra::bridge {

[[nodiscard]] vtd::UnitProperties from_c(const UmbraUnitProperties& properties);
[[nodiscard]] shadow::Options from_c(const UmbraShadowOptions& options);
[[nodiscard]] vtd::SavedState from_c(const UmbraSavedState& state);

[[nodiscard]] UmbraSavedState to_c(const vtd::SavedState& state);
[[nodiscard]] UmbraTranslation to_c(const vtd::Translation& translation);
[[nodiscard]] UmbraInterrupt to_c(const vtd::InterruptResult& result);
[[nodiscard]] UmbraContext to_c(const vtd::ContextLookup& context);
// Of an invalidation of a context cache, an IOTLB or a device's TLB.
[[nodiscard]] UmbraScope to_c(const vtd::Invalidation& invalidation);
[[nodiscard]] UmbraDmaMode to_c(shadow::DmaMode mode);

// Inline: one for each page that is mapped.
[[nodiscard]] inline UmbraHostMapping to_c(const shadow::HostMapping& mapping) {
    return std::bit_cast<UmbraHostMapping>(mapping);
}

}  // namespace umbra::bridge
