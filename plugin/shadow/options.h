// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the operator chooses for the shadow of one unit.
#pragma once

#include <cstdint>

namespace umbra::shadow {

enum class OnMapError : std::uint8_t {
    report,  // tell the operator, go on, retry
    stop,    // tell the operator and stop the machine
};

struct Options {
    // Maps that are contiguous in IOVA, guest and host memory, have the same access and are named
    // by one page-selective invalidation become one host call. A later unmap of a part must then
    // unmap the whole and map the rest again, with a moment in which DMA to the rest faults
    // (counted as a split). So what a domain or global flush finds, which may be of several
    // drivers, and what several invalidations name is not joined.
    bool coalesce = true;
    // Longest mapping, in bytes, that coalescing makes out of smaller leaves: bounds what a split
    // has to map again.
    std::uint64_t coalesce_limit = std::uint64_t{64} << 20;

    OnMapError on_map_error = OnMapError::report;

    // Budgets against hostile tables. Leaf entries of one guest domain, table pages of one guest
    // domain, table pages of the whole unit (each costs 4 KiB and 128 bytes in QEMU).
    std::uint64_t max_mappings = std::uint64_t{4} << 20;
    std::uint32_t max_tables_domain = 32768;
    std::uint32_t max_tables_unit = 65536;

    // Longest stretch of work, in nanoseconds, that a batch of invalidations does at a time. What
    // is left is done by later calls; until then caught_up() is false, and the guest waits for its
    // invalidation while everything else goes on. A host call under way is not cut short, and
    // unmaps are not put off. 0: no limit.
    std::uint64_t slice_ns = 0;
    // How many tables are looked at between two looks at the clock.
    unsigned tables_per_look = 32;
};

}  // namespace umbra::shadow
