// SPDX-License-Identifier: GPL-2.0-or-later
//
// Events of the shadow as sentences for the operator, which the platform reports.
#pragma once

#include "plugin/bridge/platform.h"
#include "plugin/shadow/events.h"

namespace umbra::bridge {

// Makes one sentence of each event: place, trouble, cause and remedy.
//
// Threading: as shadow::Events.
class OperatorEvents final : public shadow::Events {
  public:
    // `platform` outlives the object.
    explicit OperatorEvents(const UmbraPlatform& platform) : platform_(platform) {}

    void trouble(const shadow::Event& event) override;
    void healed(DomainId domain, shadow::Trouble trouble) override;
    void stop_machine(const shadow::Event& event) override;

  private:
    const UmbraPlatform& platform_;
};

}  // namespace umbra::bridge
