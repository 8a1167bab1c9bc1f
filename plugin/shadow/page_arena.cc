// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/page_arena.h"

#include <sys/mman.h>

#include <cstring>

namespace umbra::shadow {

PageArena::~PageArena() {
    for (const Region& region : regions_) {
        munmap(region.base, kRegionBytes);
    }
}

bool PageArena::add_region() {
    // Twice the size, so that an aligned region lies within; what is around it is given back.
    void* mapped = mmap(nullptr, 2 * kRegionBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) {
        return false;
    }
    auto* start = static_cast<std::byte*>(mapped);
    const std::size_t before =
        (kRegionBytes - reinterpret_cast<std::uintptr_t>(start) % kRegionBytes) % kRegionBytes;
    if (before != 0) {
        munmap(start, before);
    }
    std::byte* base = start + before;
    munmap(base + kRegionBytes, kRegionBytes - before);
    // Page by page until it is full, whatever the system's default is.
    madvise(base, kRegionBytes, MADV_NOHUGEPAGE);
    regions_.push_back({base, 0});
    return true;
}

std::uint64_t* PageArena::acquire() {
    if (!warm_.empty()) {
        std::uint64_t* page = warm_.back();
        warm_.pop_back();
        std::memset(page, 0, kPageSize);
        ++in_use_;
        return page;
    }
    if (!cold_.empty()) {
        std::uint64_t* page = cold_.back();
        cold_.pop_back();
        ++in_use_;
        return page;
    }
    if (regions_.empty() || regions_.back().untouched == kPagesPerRegion) {
        if (!add_region()) {
            return nullptr;
        }
    }
    Region& region = regions_.back();
    auto* page = reinterpret_cast<std::uint64_t*>(region.base + region.untouched * kPageSize);
    ++region.untouched;
    ++in_use_;
    if (region.untouched == kPagesPerRegion) {
        // Best effort: on failure it stays as it is, and is only slower.
        madvise(region.base, kRegionBytes, MADV_HUGEPAGE);
#ifdef MADV_COLLAPSE
        std::memset(page, 0, kPageSize);  // the last page has to be there to be collapsed
        madvise(region.base, kRegionBytes, MADV_COLLAPSE);
#endif
    }
    return page;
}

void PageArena::release(std::uint64_t* page) {
    --in_use_;
    // MADV_DONTNEED also drops the content: the page reads as zeros when it is used again.
    if (warm_.size() >= kWarmPages && madvise(page, kPageSize, MADV_DONTNEED) == 0) {
        cold_.push_back(page);
    } else {
        warm_.push_back(page);
    }
}

}  // namespace umbra::shadow
