// SPDX-License-Identifier: GPL-2.0-or-later
//
// Copies of page tables in a machine's RAM, for the price of a memcmp of them.
#pragma once

#include <cstddef>
#include <vector>

#include "plugin/vtd/types.h"
#include "tests/qtest/qtest_machine.h"

namespace umbra::bench {

class TableCopies {
  public:
    // Copies the tables, each a page of `machine`, which outlives this.
    TableCopies(qtest::QtestMachine& machine, std::vector<Gpa> tables);

    // ns to compare all tables with their copies, once, in this process. Throws std::runtime_error
    // if one differs.
    [[nodiscard]] double compare() const;

  private:
    [[nodiscard]] const std::byte* table(std::size_t index) const;

    qtest::QtestMachine& machine_;
    std::vector<Gpa> tables_;
    std::vector<std::byte> copies_;
};

}  // namespace umbra::bench
