// SPDX-License-Identifier: GPL-2.0-or-later
//
// The other name of a domain's shadow.
#pragma once

#include "plugin/shadow/domain.h"

namespace umbra::shadow {

using AddressSpace = Domain;

}  // namespace umbra::shadow
