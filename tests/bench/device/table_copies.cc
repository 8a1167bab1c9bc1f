// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/bench/device/table_copies.h"

#include <chrono>
#include <cstring>
#include <stdexcept>

namespace umbra::bench {

TableCopies::TableCopies(qtest::QtestMachine& machine, std::vector<Gpa> tables)
    : machine_(machine), tables_(std::move(tables)), copies_(tables_.size() * kPageSize) {
    for (std::size_t i = 0; i < tables_.size(); i++) {
        std::memcpy(copies_.data() + i * kPageSize, table(i), kPageSize);
    }
}

const std::byte* TableCopies::table(std::size_t index) const {
    return machine_.ram().subspan(tables_[index].value(), kPageSize).data();
}

double TableCopies::compare() const {
    const auto start = std::chrono::steady_clock::now();
    std::size_t differences = 0;
    for (std::size_t i = 0; i < tables_.size(); i++) {
        differences += std::memcmp(copies_.data() + i * kPageSize, table(i), kPageSize) != 0;
    }
    const auto end = std::chrono::steady_clock::now();
    if (differences != 0) {
        throw std::runtime_error("a case left the tables other than they were");
    }
    return std::chrono::duration<double, std::nano>(end - start).count();
}

}  // namespace umbra::bench
