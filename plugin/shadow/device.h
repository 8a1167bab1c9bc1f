// SPDX-License-Identifier: GPL-2.0-or-later
//
// The shadow's ports to a device behind the unit, and to the guest's context entries.
#pragma once

#include <cstdint>

#include "plugin/shadow/host_mapper.h"
#include "plugin/vtd/types.h"

namespace umbra::shadow {

// How a device's DMA is translated.
enum class DmaMode : std::uint8_t {
    blocked,       // the device has no valid context entry: every DMA faults
    translated,    // addresses are IOVAs, translated by second-stage tables
    pass_through,  // addresses are guest-physical: translation is off, or the context entry says so
};

// The content of one device's context entry, from the root table that is in force.
struct DeviceContext {
    DmaMode mode = DmaMode::blocked;
    // Meaningful if mode is translated. `root` is the top-level table. `levels` is the number of
    // levels of a walk (3: 39 bits, 4: 48 bits).
    DomainId domain{};
    Gpa root{};
    unsigned levels = 0;

    friend bool operator==(const DeviceContext&, const DeviceContext&) = default;
};

// Reads root and context entries. Implemented with vtd::Unit::context_of.
class ContextSource {
  public:
    virtual ~ContextSource() = default;
    [[nodiscard]] virtual DeviceContext context_of(SourceId source) const = 0;

  protected:
    ContextSource() = default;
    ContextSource(const ContextSource&) = default;
    ContextSource& operator=(const ContextSource&) = default;
};

// One device that the manager was told of. Implemented outside of the shadow.
//
// Threading: as HostMapper. Implementations must not call back into the shadow.
class Device {
  public:
    virtual ~Device() = default;

    // The source-id by the current bus numbers, which the guest assigns.
    [[nodiscard]] virtual SourceId source_id() const = 0;

    // The host mapper that gets the device's mappings. Null for a device whose DMA is emulated and
    // translated at access time: such a device gets its mode, and nothing is mirrored for it. To
    // change the mapper, remove the device and add it again.
    [[nodiscard]] virtual HostMapper* mapper() = 0;

    // Called when the mode changes, and once when the device is added. The shadow has nothing
    // mapped at any call: it unmaps before it leaves `translated`, and maps after it has come to
    // `translated`. So somebody else can fill the same host container in pass-through mode.
    virtual void set_mode(DmaMode mode) = 0;

  protected:
    Device() = default;
    Device(const Device&) = default;
    Device& operator=(const Device&) = default;
};

}  // namespace umbra::shadow
