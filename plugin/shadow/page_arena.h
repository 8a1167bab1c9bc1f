// SPDX-License-Identifier: GPL-2.0-or-later
//
// Memory for the mirror's copies of table pages. Pages come from regions of 2 MiB that are aligned
// to their size; a region whose pages are all in use is turned into a huge page, so that a sync of
// a large domain misses the TLB less. A region that is not full is left to the kernel's ordinary
// pages, so what was never used costs no memory.
//
// Threading: one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "plugin/vtd/types.h"

namespace umbra::shadow {

class PageArena {
  public:
    PageArena() = default;
    ~PageArena();
    PageArena(const PageArena&) = delete;
    PageArena& operator=(const PageArena&) = delete;

    // A page of kEntriesPerTable zeroed entries, or nullptr if the host is out of memory. It stays
    // the arena's; give it back with release().
    [[nodiscard]] std::uint64_t* acquire();
    void release(std::uint64_t* page);

    // Pages handed out now.
    [[nodiscard]] std::size_t in_use() const { return in_use_; }

  private:
    static constexpr std::size_t kRegionBytes = std::size_t{2} << 20;
    static constexpr std::size_t kPagesPerRegion = kRegionBytes / kPageSize;
    // Free pages that keep their memory, to be handed out again without a system call.
    static constexpr std::size_t kWarmPages = 64;

    struct Region {
        std::byte* base = nullptr;
        std::size_t untouched = 0;  // pages from here on were never handed out
    };
    [[nodiscard]] bool add_region();

    std::vector<Region> regions_;
    std::vector<std::uint64_t*> warm_;
    std::vector<std::uint64_t*> cold_;  // their memory was given back to the kernel
    std::size_t in_use_ = 0;
};

}  // namespace umbra::shadow
