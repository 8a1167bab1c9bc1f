// SPDX-License-Identifier: GPL-2.0-or-later
//
// A device behind the unit as the shadow sees it, and how the shadow learns what the guest's
// context entries say about it.
#pragma once

#include <cstdint>

#include "plugin/shadow/host_mapper.h"
#include "plugin/vtd/types.h"

namespace umbra::shadow {

// What a device's DMA goes through now.
enum class DmaMode : std::uint8_t {
    blocked,       // no valid context entry: every DMA faults
    translated,    // second-stage tables
    pass_through,  // addresses are guest-physical: translation off, or a pass-through context entry
};

// What the tables that the guest has in force say about one device.
struct DeviceContext {
    DmaMode mode = DmaMode::blocked;
    // Meaningful if mode is translated. Top-level table, and levels of the walk (3: 39 bits,
    // 4: 48 bits).
    DomainId domain{};
    Gpa root{};
    unsigned levels = 0;

    friend bool operator==(const DeviceContext&, const DeviceContext&) = default;
};

// Reads root and context entries. Implemented over vtd::Unit::context_of.
class ContextSource {
  public:
    virtual ~ContextSource() = default;
    [[nodiscard]] virtual DeviceContext context_of(SourceId source) const = 0;

  protected:
    ContextSource() = default;
    ContextSource(const ContextSource&) = default;
    ContextSource& operator=(const ContextSource&) = default;
};

// Implemented outside of the shadow, one for each device that the manager was told of.
class Device {
  public:
    virtual ~Device() = default;

    // As the guest has numbered the buses now.
    [[nodiscard]] virtual SourceId source_id() const = 0;

    // Where its mappings go. Null for a device that only does emulated DMA, translated at access
    // time: the shadow keeps its mode up to date and mirrors nothing for it. To change the mapper,
    // remove the device and add it again.
    [[nodiscard]] virtual HostMapper* mapper() = 0;

    // Called when the mode changes, and once when the device is added. Everything that the shadow
    // had mapped is gone from the mapper before a call with another mode than `translated`, and
    // nothing is mapped before a call with `translated`: so the owner can let somebody else fill the
    // same host container in pass-through mode.
    virtual void set_mode(DmaMode mode) = 0;

  protected:
    Device() = default;
    Device(const Device&) = default;
    Device& operator=(const Device&) = default;
};

}  // namespace umbra::shadow
