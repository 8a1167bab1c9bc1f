// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/support/driver/second_stage.h"

namespace umbra::driver {

SecondStage::SecondStage(Memory& memory, PageAllocator& pages, unsigned address_width)
    : SecondStage(memory, pages, address_width, pages.allocate()) {}

SecondStage::SecondStage(Memory& memory, PageAllocator& pages, unsigned address_width, Gpa root)
    : memory_(memory), pages_(pages), levels_((address_width - 12) / 9), root_(root) {}

Gpa SecondStage::entry(Iova iova, unsigned level) {
    Gpa table = root_;
    for (unsigned at = levels_; at > level; at--) {
        const Gpa slot = table + std::uint64_t{table_index(iova, at)} * 8;
        std::uint64_t value = memory_.load64(slot);
        if (!is_table(value)) {
            value = pages_.allocate().value() | kEntryReadWrite;
            table_pages_++;
            memory_.store64(slot, value);
        }
        table = Gpa(value & kEntryAddress);
    }
    return table + std::uint64_t{table_index(iova, level)} * 8;
}

void SecondStage::set_entry(Iova iova, unsigned level, std::uint64_t value) {
    memory_.store64(entry(iova, level), value);
}

void SecondStage::map(Iova iova, Gpa target, Leaf leaf, std::uint64_t permissions) {
    const auto level = static_cast<unsigned>(leaf);
    const std::uint64_t size_bit = leaf == Leaf::page_4k ? 0 : kEntryLeaf;
    set_entry(iova, level, target.value() | permissions | size_bit);
}

void SecondStage::map_pages(Iova iova, Gpa target, std::size_t count) {
    std::size_t done = 0;
    while (done < count) {
        Gpa slot = entry(iova + done * kPageSize, 1);
        // To the end of this table without walking again.
        do {
            memory_.store64(slot, (target + done * kPageSize).value() | kEntryReadWrite);
            slot = slot + 8;
            done++;
        } while (done < count && !slot.is_aligned(kPageSize));
    }
}

void SecondStage::unmap(Iova iova, Leaf leaf) {
    set_entry(iova, static_cast<unsigned>(leaf), 0);
}

void SecondStage::unmap_pages(Iova iova, std::size_t count) {
    for (std::size_t i = 0; i < count; i++) {
        unmap(iova + i * kPageSize);
    }
}

}  // namespace umbra::driver
