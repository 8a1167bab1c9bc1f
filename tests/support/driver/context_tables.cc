// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/support/driver/context_tables.h"

namespace umbra::driver {

ContextTables::ContextTables(Memory& memory, PageAllocator& pages)
    : ContextTables(memory, pages, pages.allocate()) {}

ContextTables::ContextTables(Memory& memory, PageAllocator& pages, Gpa root)
    : memory_(memory), pages_(pages), root_(root) {}

Gpa ContextTables::root_entry(std::uint8_t bus) const {
    return root_ + bus * kTableEntryBytes;
}

Gpa ContextTables::context_entry(SourceId function) {
    const auto [found, is_new] = tables_.try_emplace(function.bus());
    if (is_new) {
        found->second = pages_.allocate();
        memory_.store64(root_entry(function.bus()), found->second.value() | kPresent);
    }
    return found->second + function.devfn() * kTableEntryBytes;
}

void ContextTables::set(SourceId function, const Context& context) {
    const Gpa slot = context_entry(function);
    memory_.store64(slot + 8, context_high(context.domain, context.levels));
    memory_.store64(slot, context.table.value() |
                              static_cast<std::uint64_t>(context.type) << kContextTypeShift |
                              (context.fault_processing_disabled ? kContextFaultsDisabled : 0) |
                              (context.present ? kPresent : 0));
}

void ContextTables::clear(SourceId function) {
    const Gpa slot = context_entry(function);
    memory_.store64(slot, 0);
    memory_.store64(slot + 8, 0);
}

}  // namespace umbra::driver
