// SPDX-License-Identifier: GPL-2.0-or-later
//
// Root and context tables as a guest's driver builds them (specification 9.1, 9.3).
#pragma once

#include <cstdint>
#include <map>

#include "plugin/vtd/types.h"
#include "tests/support/driver/layout.h"
#include "tests/support/driver/memory.h"
#include "tests/support/driver/page_allocator.h"

namespace umbra::driver {

// What a context entry says.
struct Context {
    Gpa table{};
    unsigned levels = 4;
    std::uint16_t domain = 0;
    TranslationType type = TranslationType::second_stage;
    bool fault_processing_disabled = false;
    bool present = true;
};

// The root table and the context tables of the busses in use. `memory` and `pages` outlive it.
class ContextTables {
  public:
    ContextTables(Memory& memory, PageAllocator& pages);
    // `root` is a page of zeros.
    ContextTables(Memory& memory, PageAllocator& pages, Gpa root);

    [[nodiscard]] Gpa root() const { return root_; }
    void set(SourceId function, const Context& context);
    void clear(SourceId function);
    // Address of the 16-byte context entry, its bus's table being made if needed.
    [[nodiscard]] Gpa context_entry(SourceId function);
    // Address of the 16-byte root entry.
    [[nodiscard]] Gpa root_entry(std::uint8_t bus) const;

  private:
    Memory& memory_;
    PageAllocator& pages_;
    Gpa root_;
    std::map<std::uint8_t, Gpa> tables_;
};

}  // namespace umbra::driver
