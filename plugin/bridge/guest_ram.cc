// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/bridge/guest_ram.h"

#include <algorithm>
#include <cstring>
#include <memory>

namespace {

bool holds(const UmbraRamRange& range, std::uint64_t address) {
    return address - range.address < range.size;
}

}  // namespace

UmbraRamMap::UmbraRamMap(std::span<const UmbraRamRange> ranges)
    : ranges_(ranges.begin(), ranges.end()) {
    std::sort(ranges_.begin(), ranges_.end(),
              [](const auto& a, const auto& b) { return a.address < b.address; });
}

const UmbraRamRange* UmbraRamMap::find(std::uint64_t address) const {
    const std::uint32_t hint = hint_.load(std::memory_order_relaxed);
    if (hint < ranges_.size() && holds(ranges_[hint], address)) {
        return &ranges_[hint];
    }
    const auto after = std::upper_bound(
        ranges_.begin(), ranges_.end(), address,
        [](std::uint64_t value, const UmbraRamRange& range) { return value < range.address; });
    if (after == ranges_.begin() || !holds(*(after - 1), address)) {
        return nullptr;
    }
    const auto found = after - 1;
    hint_.store(static_cast<std::uint32_t>(found - ranges_.begin()), std::memory_order_relaxed);
    return &*found;
}

namespace umbra::bridge {

GuestRam::~GuestRam() {
    const std::unique_ptr<UmbraRamMap> last(map_.load(std::memory_order_relaxed));
}

UmbraRamMap* GuestRam::swap(UmbraRamMap* map) {
    UmbraRamMap* previous = map_.exchange(map, std::memory_order_acq_rel);
    generation_.fetch_add(1, std::memory_order_acq_rel);
    return previous;
}

bool GuestRam::read(Gpa address, std::span<std::byte> into) const {
    const UmbraRamMap* map = map_.load(std::memory_order_acquire);
    std::uint64_t at = address.value();
    while (!into.empty()) {
        const UmbraRamRange* range = map == nullptr ? nullptr : map->find(at);
        if (range == nullptr) {
            return false;
        }
        const std::uint64_t offset = at - range->address;
        const auto length =
            static_cast<std::size_t>(std::min<std::uint64_t>(into.size(), range->size - offset));
        std::memcpy(into.data(), range->host + offset, length);
        into = into.subspan(length);
        at += length;
    }
    return true;
}

bool GuestRam::write(Gpa address, std::span<const std::byte> from) {
    const UmbraRamMap* map = map_.load(std::memory_order_acquire);
    std::uint64_t at = address.value();
    std::size_t left = from.size();
    while (left > 0) {
        const UmbraRamRange* range = map == nullptr ? nullptr : map->find(at);
        if (range == nullptr || !range->writable) {
            return false;
        }
        const std::uint64_t length =
            std::min<std::uint64_t>(left, range->size - (at - range->address));
        left -= static_cast<std::size_t>(length);
        at += length;
    }
    return write_memory_(opaque_, address.value(), from.data(), from.size());
}

const std::byte* GuestRam::page_pointer(Gpa page) const {
    const UmbraRamMap* map = map_.load(std::memory_order_acquire);
    const UmbraRamRange* range = map == nullptr ? nullptr : map->find(page.value());
    if (range == nullptr || range->size - (page.value() - range->address) < kPageSize) {
        return nullptr;
    }
    return reinterpret_cast<const std::byte*>(range->host + (page.value() - range->address));
}

void GuestRam::list(std::vector<shadow::RamRun>& runs) const {
    runs.clear();
    const UmbraRamMap* map = map_.load(std::memory_order_acquire);
    if (map == nullptr) {
        return;
    }
    for (const UmbraRamRange& range : map->ranges()) {
        // The shadow maps whole pages: parts of a page at both ends of the piece are left out.
        const std::uint64_t skipped = -range.address & (kPageSize - 1);
        if (range.size < skipped + kPageSize) {
            continue;
        }
        runs.push_back({
            .first = Gpa(range.address + skipped),
            .bytes = (range.size - skipped) & ~(kPageSize - 1),
            .host = HostAddress(reinterpret_cast<std::uintptr_t>(range.host) + skipped),
            .read_only = !range.writable,
        });
    }
}

}  // namespace umbra::bridge

extern "C" {

UmbraRamMap* umbra_ram_map_new(const UmbraRamRange* ranges, size_t count) noexcept {
    return std::make_unique<UmbraRamMap>(std::span(ranges, count)).release();
}

void umbra_ram_map_free(UmbraRamMap* map) noexcept {
    const std::unique_ptr<UmbraRamMap> owned(map);
}

}  // extern "C"
