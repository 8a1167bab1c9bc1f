// SPDX-License-Identifier: GPL-2.0-or-later
//
// Guest-physical memory as the unit and the shadow see it. The guest writes this memory and may
// change it at any moment: read a value once, and use the copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "plugin/vtd/types.h"

namespace umbra {

// Implemented over QEMU's memory API in plugin/qemu, and over plain buffers in tests.
//
// Threading: every function may be called from any thread that may do DMA. Implementations do
// their own synchronisation against changes of the memory map.
class GuestMemory {
  public:
    virtual ~GuestMemory() = default;

    // Copies guest memory at `address` into `into`. False if any part of it is not guest RAM; then
    // the content of `into` is unspecified.
    [[nodiscard]] virtual bool read(Gpa address, std::span<std::byte> into) const = 0;

    // False if any part of the target is not writable guest RAM; then nothing was written.
    [[nodiscard]] virtual bool write(Gpa address, std::span<const std::byte> from) = 0;

    // A direct pointer to the 4 KiB of guest RAM at `page` (page-aligned), or nullptr if they are
    // not RAM in one piece. The pointer stays valid while `generation()` stays the same.
    [[nodiscard]] virtual const std::byte* page_pointer(Gpa page) const = 0;

    // Changes whenever a pointer that `page_pointer` gave out may have become stale.
    [[nodiscard]] virtual std::uint64_t generation() const = 0;

    // One aligned 8-byte little-endian load, atomic with regard to guest CPUs. nullopt if `address`
    // is no RAM or not 8-byte aligned. Not virtual: built on page_pointer and read.
    [[nodiscard]] std::optional<std::uint64_t> read_u64(Gpa address) const;

  protected:
    GuestMemory() = default;
    GuestMemory(const GuestMemory&) = default;
    GuestMemory& operator=(const GuestMemory&) = default;
};

}  // namespace umbra
