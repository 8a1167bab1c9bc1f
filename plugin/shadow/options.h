// SPDX-License-Identifier: GPL-2.0-or-later
//
// The operator's options for the shadow of one unit.
#pragma once

#include <cstdint>

namespace umbra::shadow {

enum class OnMapError : std::uint8_t {
    report,  // the operator is told, and the machine goes on; the map is retried
    stop,    // the operator is told, and the machine stops
};

struct Options {
    // Joins leaves to one host mapping if one page-selective invalidation names them, they are
    // contiguous in IOVA, guest and host memory, and their access is the same. A later unmap of a
    // part must then unmap the whole and map the rest again (a split); meanwhile DMA to the rest
    // faults. So leaves of several invalidations, or of a domain or global invalidation, are not
    // joined: they may belong to several drivers.
    bool coalesce = true;
    // Longest mapping, in bytes, that is joined from smaller leaves. Bounds how much a split has to
    // map again.
    std::uint64_t coalesce_limit = std::uint64_t{64} << 20;

    OnMapError on_map_error = OnMapError::report;

    // Budgets against hostile tables: leaf entries of one guest domain, table pages of one guest
    // domain, table pages of the whole unit. A table page costs QEMU 4 KiB and 128 bytes.
    std::uint64_t max_mappings = std::uint64_t{4} << 20;
    std::uint32_t max_tables_domain = 32768;
    std::uint32_t max_tables_unit = 65536;

    // Slice: the longest stretch of work, in nanoseconds, that a batch of invalidations does at a
    // time. Later calls do the rest. Until then Manager::caught_up() is false, and the guest waits
    // for its invalidation while everything else goes on. A host call is never cut short, and
    // unmaps are not put off. 0: no limit.
    std::uint64_t slice_ns = 0;
    // How many tables a walk compares between two looks at the clock.
    unsigned tables_per_look = 32;
};

}  // namespace umbra::shadow
