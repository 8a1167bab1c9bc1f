// SPDX-License-Identifier: GPL-2.0-or-later
//
// A guest for benchmarks: flat RAM from address 0, and the tables of one device in it, built as a
// driver would and put in force through the unit's registers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "plugin/vtd/ports.h"
#include "plugin/vtd/types.h"
#include "plugin/vtd/unit.h"
#include "tests/support/driver/context_tables.h"
#include "tests/support/driver/page_allocator.h"
#include "tests/support/driver/second_stage.h"
#include "tests/support/fake_guest_memory.h"

namespace umbra::bench {

class IgnoreMessages : public vtd::MessageSink {
  public:
    void send(std::uint64_t, std::uint32_t) override {}
};

// A unit with translation on, and one device in domain 1 with an empty four-level table.
class Guest {
  public:
    static constexpr SourceId kDevice{0x01, 0x10};
    static constexpr DomainId kDomain{1};

    // `pages` of RAM in 4 KiB, enough for the tables that the benchmark maps: std::length_error
    // from map() otherwise.
    explicit Guest(std::size_t pages = 1024);

    // Maps the page at `iova` to `target` by a leaf, readable and writable.
    void map(Iova iova, Gpa target, driver::Leaf leaf = driver::Leaf::page_4k) {
        table_.map(iova, target, leaf);
    }

    // A page of zeros that no table uses.
    [[nodiscard]] Gpa new_page() { return pages_.allocate(); }

    [[nodiscard]] vtd::Unit& unit() { return unit_; }
    [[nodiscard]] testing::FakeGuestMemory& ram() { return ram_; }
    // The top of the device's table.
    [[nodiscard]] Gpa table() const { return table_.root(); }

  private:
    testing::FakeGuestMemory ram_;
    driver::PageAllocator pages_;
    driver::SecondStage table_;
    driver::ContextTables contexts_;
    IgnoreMessages messages_;
    vtd::Unit unit_;
};

}  // namespace umbra::bench
