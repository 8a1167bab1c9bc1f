// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/support/driver/interrupt_table.h"

#include <cstddef>

#include "tests/support/driver/layout.h"

namespace umbra::driver {

InterruptTable::InterruptTable(Memory& memory, PageAllocator& pages, unsigned size)
    : memory_(memory), size_(size) {
    const std::size_t bytes = std::size_t{16} << (size + 1);
    address_ = pages.allocate((bytes + kPageSize - 1) / kPageSize);
}

void InterruptTable::set_raw(std::uint16_t index, std::uint64_t low, std::uint64_t high) {
    const Gpa slot = address_ + index * kTableEntryBytes;
    memory_.store64(slot + 8, high);
    memory_.store64(slot, low);
}

void InterruptTable::set(std::uint16_t index, const InterruptEntry& entry) {
    const std::uint64_t destination =
        entry.extended_mode ? entry.destination : std::uint64_t{entry.destination & 0xff} << 8;
    const std::uint64_t low =
        (entry.present ? kPresent : 0) | (entry.fault_processing_disabled ? 1u << 1 : 0u) |
        (entry.logical_destination ? 1u << 2 : 0u) | (entry.redirection_hint ? 1u << 3 : 0u) |
        (entry.level_triggered ? 1u << 4 : 0u) | std::uint64_t{entry.delivery_mode} << 5 |
        std::uint64_t{entry.vector} << 16 | destination << 32;
    const std::uint64_t high = entry.source.value() | std::uint64_t{entry.source_qualifier} << 16 |
                               std::uint64_t{entry.source_validation} << 18;
    set_raw(index, low, high);
}

std::uint64_t remappable_address(std::uint16_t handle, bool subhandle_valid) {
    return 0xfee0'0000u | std::uint32_t{handle & 0x7fffu} << 5 | 1u << 4 |
           (subhandle_valid ? 1u << 3 : 0u) | std::uint32_t{handle} >> 15 << 2;
}

}  // namespace umbra::driver
