// SPDX-License-Identifier: GPL-2.0-or-later
//
// A device behind the unit whose DMA does not come through QEMU: to the shadow a device with a host
// mapper, to C the functions of a UmbraHostMapper (shadow.h).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "plugin/bridge/shadow.h"
#include "plugin/shadow/device.h"
#include "plugin/shadow/host_mapper.h"

// Threading: as shadow::HostMapper.
struct UmbraShadowDevice final : public umbra::shadow::Device, public umbra::shadow::HostMapper {
  public:
    explicit UmbraShadowDevice(const UmbraHostMapper& mapper);

    [[nodiscard]] umbra::SourceId source_id() const override;
    [[nodiscard]] umbra::shadow::HostMapper* mapper() override { return this; }
    void set_mode(umbra::shadow::DmaMode mode) override;

    umbra::shadow::HostResult map(const umbra::shadow::HostMapping& mapping) override;
    umbra::shadow::MapProgress map_all(
        std::span<const umbra::shadow::HostMapping> mappings) override;
    umbra::shadow::HostResult unmap(umbra::Iova iova, std::uint64_t bytes) override;
    [[nodiscard]] std::span<const umbra::IovaRange> holes() const override { return holes_; }
    [[nodiscard]] bool write_implies_read() const override { return mapper_.write_implies_read; }

  private:
    const UmbraHostMapper mapper_;
    const std::vector<umbra::IovaRange> holes_;
};
