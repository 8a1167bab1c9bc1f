// SPDX-License-Identifier: GPL-2.0-or-later
//
// The unit as C holds it: the remapping unit, its shadow, and what connects the two with each other
// and with the platform. Members are in the order in which they depend on each other.
//
//   platform -> memory, messages -> unit -> fan_out -> manager -> devices
//                                                   -> platform
//
// Threading: the members' own.
#pragma once

#include <chrono>
#include <cstdint>

#include "plugin/bridge/fan_out.h"
#include "plugin/bridge/guest_ram.h"
#include "plugin/bridge/operator_events.h"
#include "plugin/bridge/platform.h"
#include "plugin/bridge/unit.h"
#include "plugin/shadow/clock.h"
#include "plugin/shadow/manager.h"
#include "plugin/shadow/unit_contexts.h"
#include "plugin/vtd/ports.h"
#include "plugin/vtd/unit.h"

namespace umbra::bridge {

// The unit's own interrupts, on their way to the platform.
class PlatformMessages final : public vtd::MessageSink {
  public:
    // `platform` outlives the object.
    explicit PlatformMessages(const UmbraPlatform& platform) : platform_(platform) {}

    void send(std::uint64_t address, std::uint32_t data) override {
        platform_.send_message(platform_.opaque, address, data);
    }

  private:
    const UmbraPlatform& platform_;
};

// Now, in nanoseconds since the clock's epoch.
template <class Clock>
std::uint64_t nanoseconds_of() {
    const auto since = Clock::now().time_since_epoch();
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(since).count());
}

}  // namespace umbra::bridge

struct UmbraUnit {
    UmbraUnit(const UmbraUnitProperties& properties, const UmbraShadowOptions& options,
              const UmbraPlatform& outside);

    const UmbraPlatform platform;
    umbra::bridge::GuestRam memory;
    umbra::bridge::PlatformMessages messages;
    umbra::vtd::Unit unit;
    umbra::bridge::OperatorEvents events;
    umbra::shadow::SteadyClock clock;
    umbra::shadow::UnitContexts contexts;
    umbra::shadow::Manager manager;
    umbra::bridge::InvalidationFanOut fan_out;
    std::uint64_t counting_since_ns;  // of the steady clock
};
