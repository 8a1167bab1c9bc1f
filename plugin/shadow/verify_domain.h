// SPDX-License-Identifier: GPL-2.0-or-later
//
// The part of verification (see verify.h) that looks into one domain.
#pragma once

#include "plugin/shadow/address_space.h"
#include "plugin/shadow/host_binding.h"
#include "plugin/shadow/verify.h"

namespace umbra::shadow {

class DomainVerifier {
  public:
    // Both outlive the object, which is used at once.
    DomainVerifier(const AddressSpace& space, const UnitResources& unit);

    // Compares the guest's tables with what is mapped on the host for one device of the domain, and
    // adds what it finds to `result`.
    void verify(const HostBinding& binding, SourceId source, Verification& result);

  private:
    const AddressSpace& space_;
    const UnitResources& unit_;
};

}  // namespace umbra::shadow
