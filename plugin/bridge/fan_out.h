// SPDX-License-Identifier: GPL-2.0-or-later
//
// The fan-out of invalidations: hands each that the unit reports to the shadow, and then to the
// platform. The shadow comes first because it switches the view of the devices that it maps for;
// the platform switches that of all others.
//
// Invalidations of interrupt entries are gathered. The platform refreshes every interrupt route at
// each, so one call for all of them, before the guest sees them completed, is enough.
//
// Threading: as vtd::InvalidationObserver; one thread at a time.
#pragma once

#include "plugin/bridge/platform.h"
#include "plugin/shadow/manager.h"
#include "plugin/vtd/ports.h"

namespace umbra::bridge {

class InvalidationFanOut final : public vtd::InvalidationObserver {
  public:
    // Both outlive the object.
    InvalidationFanOut(shadow::Manager& shadow, const UmbraPlatform& platform)
        : shadow_(shadow), platform_(platform) {}

    void invalidated(const vtd::Invalidation& invalidation) override;
    void translation_changed(bool enabled) override;
    void interrupt_remapping_changed(bool enabled) override;

    void batch_begin() override { shadow_.batch_begin(); }
    void barrier() override;
    void batch_end() override { shadow_.batch_end(); }
    [[nodiscard]] bool caught_up() const override { return shadow_.caught_up(); }
    [[nodiscard]] bool may_complete() const override { return shadow_.may_complete(); }
    [[nodiscard]] bool has_time() const override { return shadow_.has_time(); }

  private:
    shadow::Manager& shadow_;
    const UmbraPlatform& platform_;
    bool interrupt_entries_changed_ = false;
};

}  // namespace umbra::bridge
