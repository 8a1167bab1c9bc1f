// SPDX-License-Identifier: GPL-2.0-or-later
//
// The part of verification that looks into one domain (see verify.h).
#pragma once

#include "plugin/shadow/domain.h"
#include "plugin/shadow/host_binding.h"
#include "plugin/shadow/verify.h"

namespace umbra::shadow {

class DomainVerifier {
  public:
    // Both outlive the object.
    DomainVerifier(const Domain& domain, const UnitResources& unit);

    // Compares the guest's tables with the host mappings of one device of the domain, and adds the
    // differences to `result`.
    void verify(const HostBinding& binding, SourceId source, Verification& result);

  private:
    const Domain& domain_;
    const UnitResources& unit_;
};

}  // namespace umbra::shadow
