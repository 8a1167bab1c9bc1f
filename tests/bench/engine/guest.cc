// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/bench/engine/guest.h"

#include "tests/support/driver/layout.h"

namespace umbra::bench {

Guest::Guest(std::size_t pages)
    : ram_(pages * kPageSize),
      pages_(ram_, Gpa(kPageSize), Gpa(pages * kPageSize - 1)),
      table_(ram_, pages_, 48),
      contexts_(ram_, pages_),
      unit_(vtd::UnitProperties{}, {ram_, messages_}) {
    contexts_.set(kDevice, {.table = table_.root(), .domain = static_cast<std::uint16_t>(kDomain)});
    unit_.mmio_write(driver::kRootTableAddress, contexts_.root().value(), 8);
    unit_.mmio_write(driver::kGlobalCommand, driver::kSetRootTable, 4);
    unit_.mmio_write(driver::kGlobalCommand, driver::kTranslationEnable, 4);
}

}  // namespace umbra::bench
