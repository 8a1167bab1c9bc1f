// SPDX-License-Identifier: GPL-2.0-or-later
//
// Guest RAM over QEMU's, for the unit and for the shadow: a sorted table of the pieces of RAM,
// looked up without a lock. QEMU's memory listener builds a new table when the memory map changes
// and swaps it in; a reader that still holds the old one is safe, because the table and the host
// memory that it names outlive the grace period of QEMU's RCU (the C side sees to that;
// ram_listener.c).
//
// Reads go straight to the host memory. Writes do not: QEMU must learn of each, for dirty tracking
// in a migration and for translated code under TCG.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "plugin/bridge/ram.h"
#include "plugin/shadow/ram_map.h"
#include "plugin/vtd/guest_memory.h"

// Pieces of guest RAM, sorted by address and without overlap. Immutable but for the hint.
struct UmbraRamMap {
  public:
    explicit UmbraRamMap(std::span<const UmbraRamRange> ranges);

    // The piece that holds `address`, or nullptr. Any thread.
    [[nodiscard]] const UmbraRamRange* find(std::uint64_t address) const;

    [[nodiscard]] std::span<const UmbraRamRange> ranges() const { return ranges_; }

  private:
    std::vector<UmbraRamRange> ranges_;
    // Where the last look-up ended: one piece takes nearly all of them.
    mutable std::atomic<std::uint32_t> hint_{0};
};

namespace umbra::bridge {

class GuestRam final : public GuestMemory, public shadow::RamMap {
  public:
    using WriteMemory = bool (*)(void* opaque, std::uint64_t address, const void* from,
                                 std::size_t size);

    GuestRam(WriteMemory write_memory, void* opaque)
        : write_memory_(write_memory), opaque_(opaque) {}
    ~GuestRam() override;
    GuestRam(const GuestRam&) = delete;
    GuestRam& operator=(const GuestRam&) = delete;

    // Ownership of `map` passes in, that of the previous one out. One thread at a time.
    [[nodiscard]] UmbraRamMap* swap(UmbraRamMap* map);

    // ---- GuestMemory: any thread ----

    [[nodiscard]] bool read(Gpa address, std::span<std::byte> into) const override;
    [[nodiscard]] bool write(Gpa address, std::span<const std::byte> from) override;
    [[nodiscard]] const std::byte* page_pointer(Gpa page) const override;
    // Also of shadow::RamMap.
    [[nodiscard]] std::uint64_t generation() const override {
        return generation_.load(std::memory_order_acquire);
    }

    // ---- shadow::RamMap: from the thread that swaps ----

    void list(std::vector<shadow::RamRun>& runs) const override;

  private:
    std::atomic<UmbraRamMap*> map_{nullptr};
    std::atomic<std::uint64_t> generation_{0};
    WriteMemory write_memory_;
    void* opaque_;
};

}  // namespace umbra::bridge
