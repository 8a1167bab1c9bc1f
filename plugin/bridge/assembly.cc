// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/bridge/assembly.h"

#include "plugin/bridge/convert.h"

using umbra::bridge::from_c;

UmbraUnit::UmbraUnit(const UmbraUnitProperties& properties, const UmbraShadowOptions& options,
                     const UmbraPlatform& outside)
    : platform(outside),
      memory(platform.write_memory, platform.opaque),
      messages(platform),
      // Keeps the address of the fan-out; nothing is invalidated before the guest runs.
      unit(from_c(properties), {.memory = memory, .messages = messages, .observer = &fan_out}),
      events(platform),
      contexts(unit),
      manager(from_c(options),
              umbra::vtd::EntryFormat(properties.host_address_width, properties.snoop_control),
              {.memory = memory,
               .ram = memory,
               .contexts = contexts,
               .events = events,
               .clock = clock}),
      fan_out(manager, platform),
      counting_since_ns(umbra::bridge::nanoseconds_of<std::chrono::steady_clock>()) {}
