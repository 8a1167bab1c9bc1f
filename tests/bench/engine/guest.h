// SPDX-License-Identifier: GPL-2.0-or-later
//
// A guest for benchmarks: flat RAM from address 0, and the tables of one device in it, built as a
// driver would and put in force through the unit's registers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "plugin/vtd/guest_memory.h"
#include "plugin/vtd/ports.h"
#include "plugin/vtd/types.h"
#include "plugin/vtd/unit.h"

namespace umbra::bench {

class FlatRam : public GuestMemory {
  public:
    // `pages` of 4 KiB.
    explicit FlatRam(std::size_t pages) : quads_(pages * kPageSize / sizeof(std::uint64_t)) {}

    void store(Gpa address, std::uint64_t value) { quads_[address.value() / sizeof value] = value; }
    [[nodiscard]] std::uint64_t load(Gpa address) const {
        return quads_[address.value() / sizeof(std::uint64_t)];
    }

    [[nodiscard]] bool read(Gpa address, std::span<std::byte> into) const override;
    [[nodiscard]] bool write(Gpa address, std::span<const std::byte> from) override;
    [[nodiscard]] const std::byte* page_pointer(Gpa page) const override;
    [[nodiscard]] std::uint64_t generation() const override { return 0; }

  private:
    [[nodiscard]] bool contains(Gpa address, std::size_t bytes) const;

    std::vector<std::uint64_t> quads_;
};

class IgnoreMessages : public vtd::MessageSink {
  public:
    void send(std::uint64_t, std::uint32_t) override {}
};

// A unit with translation on, and one device in domain 1 with an empty four-level table.
class Guest {
  public:
    static constexpr SourceId kDevice{0x01, 0x10};
    static constexpr DomainId kDomain{1};

    // `pages` of RAM in 4 KiB, enough for the tables that the benchmark maps.
    explicit Guest(std::size_t pages = 1024);

    // Maps the page at `iova` to `target` by a leaf of `level` (1 to 3), readable and writable.
    void map(Iova iova, Gpa target, unsigned level = 1);

    [[nodiscard]] vtd::Unit& unit() { return unit_; }
    [[nodiscard]] FlatRam& ram() { return ram_; }
    [[nodiscard]] Gpa table() const { return table_; }
    // A zeroed page for a table.
    [[nodiscard]] Gpa new_page();

  private:
    static constexpr unsigned kLevels = 4;

    FlatRam ram_;
    IgnoreMessages messages_;
    Gpa next_page_{kPageSize};
    Gpa table_;
    vtd::Unit unit_;
};

}  // namespace umbra::bench
