// SPDX-License-Identifier: GPL-2.0-or-later
//
// Tells the operator of each kind of trouble once a guest domain, and of its end.
#pragma once

#include <array>
#include <cstddef>

#include "plugin/shadow/events.h"
#include "plugin/shadow/options.h"

namespace umbra::shadow {

class TroubleLog {
  public:
    TroubleLog(Events& events, DomainId domain, OnMapError policy)
        : events_(events), domain_(domain), policy_(policy) {}

    // `error` is the errno of the host call, 0 if none was made.
    void report(Trouble trouble, IovaRange range, int error);
    // Everything of this kind is in place now.
    void heal(Trouble trouble);
    // It is not the domain's any more, healed or not: told anew when there is more of this kind.
    void forget(Trouble trouble);
    // A machine that was stopped for this kind of trouble goes on: what still is, is told again
    // and stops it again.
    void machine_goes_on() { stopped_ = false; }

  private:
    static constexpr std::size_t kKinds = 6;

    Events& events_;
    const DomainId domain_;
    const OnMapError policy_;
    std::array<bool, kKinds> told_{};
    bool stopped_ = false;  // asked for it, and the trouble lasts
};

}  // namespace umbra::shadow
