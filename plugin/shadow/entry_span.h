// SPDX-License-Identifier: GPL-2.0-or-later
//
// Entries `first` to `last` of one table, in two versions: the guest's page and the mirror's copy.
//
// The guest can write to its page at any time. So each entry is loaded once, and only the loaded
// value counts.
//
// Threading: one thread at a time.
#pragma once

#include <cstdint>

#include "plugin/shadow/mirror.h"
#include "plugin/vtd/types.h"

namespace umbra::shadow {

struct EntrySpan {
    Table& table;
    const std::uint64_t* guest;  // the guest's page; a page of zeros if that is not in RAM
    unsigned first;
    unsigned last;  // not below `first`

    [[nodiscard]] unsigned size() const { return last - first + 1; }
    [[nodiscard]] EntrySpan from(unsigned slot) const { return {table, guest, slot, last}; }
    // The guest's entry at `slot`, which can be outside of the span.
    [[nodiscard]] std::uint64_t load(unsigned slot) const {
        return __atomic_load_n(guest + slot, __ATOMIC_RELAXED);
    }
};

}  // namespace umbra::shadow
