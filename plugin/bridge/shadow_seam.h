// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the shadow needs of QEMU, made of the callbacks that cross bridge.h: devices with their host
// mappings, guest RAM as host memory, and somewhere to tell the operator.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "plugin/bridge/bridge.h"
#include "plugin/bridge/guest_ram.h"
#include "plugin/shadow/device.h"
#include "plugin/shadow/events.h"
#include "plugin/shadow/host_mapper.h"
#include "plugin/shadow/ram_map.h"

// A device behind the unit whose DMA does not come through QEMU.
struct UmbraShadowDevice final : public umbra::shadow::Device, public umbra::shadow::HostMapper {
  public:
    explicit UmbraShadowDevice(const UmbraHostPort& port) : port_(port) {}

    [[nodiscard]] umbra::SourceId source_id() const override;
    [[nodiscard]] umbra::shadow::HostMapper* mapper() override { return this; }
    void set_mode(umbra::shadow::DmaMode mode) override;

    umbra::shadow::HostResult map(const umbra::shadow::HostMapping& mapping) override;
    umbra::shadow::MapProgress map_all(
        std::span<const umbra::shadow::HostMapping> mappings) override;
    umbra::shadow::HostResult unmap(umbra::Iova iova, std::uint64_t bytes) override;

  private:
    const UmbraHostPort port_;
};

namespace umbra {

class RamRuns final : public shadow::RamMap {
  public:
    // `ram` outlives the object.
    explicit RamRuns(const GuestRam& ram) : ram_(ram) {}

    [[nodiscard]] std::uint64_t generation() const override { return ram_.generation(); }
    void list(std::vector<shadow::RamRun>& runs) const override;

  private:
    const GuestRam& ram_;
};

// Makes one sentence of each event: what, where, and the remedy. Remembers that the machine is
// about to stop: until it has, the guest must not see anything completed.
class OperatorEvents final : public shadow::Events {
  public:
    explicit OperatorEvents(const UmbraPlatform& platform) : platform_(platform) {}

    void trouble(const shadow::Event& event) override;
    void healed(DomainId domain, shadow::Trouble trouble) override;
    void stop_machine(const shadow::Event& event) override;

    [[nodiscard]] bool stopping() const { return stopping_; }
    void stopped() { stopping_ = false; }

  private:
    const UmbraPlatform& platform_;
    bool stopping_ = false;
};

}  // namespace umbra
