// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/qtest/guest_tables.h"

#include <stdexcept>

namespace umbra::qtest {

namespace {

constexpr std::uint64_t kPresent = 1;

constexpr std::uint64_t table_index(Iova iova, unsigned level) {
    return iova.value() >> (12 + 9 * (level - 1)) & 0x1ff;
}

constexpr bool is_table(std::uint64_t entry) {
    return (entry & vtd::kEntryReadWrite) != 0 && (entry & vtd::kEntryLeaf) == 0;
}

}  // namespace

Gpa PageAllocator::allocate(std::size_t pages, std::uint64_t alignment) {
    const Gpa start = (next_ + (alignment - 1)).align_down(alignment);
    const Gpa end = start + pages * kPageSize;
    if (end - 1 > last_) {
        throw std::length_error("the test machine's RAM for tables is used up");
    }
    next_ = end;
    machine_.fill(start, pages * kPageSize, std::byte{0});
    return start;
}

SecondStage::SecondStage(QtestMachine& machine, PageAllocator& pages, unsigned address_width)
    : machine_(machine),
      pages_(pages),
      levels_((address_width - 12) / 9),
      root_(pages.allocate()) {}

Gpa SecondStage::entry(Iova iova, unsigned level) {
    Gpa table = root_;
    for (unsigned at = levels_; at > level; at--) {
        const Gpa slot = table + table_index(iova, at) * 8;
        std::uint64_t value = machine_.load64(slot);
        if (!is_table(value)) {
            value = pages_.allocate().value() | vtd::kEntryReadWrite;
            table_pages_++;
            machine_.store64(slot, value);
        }
        table = Gpa(value & vtd::kEntryAddress);
    }
    return table + table_index(iova, level) * 8;
}

void SecondStage::set_entry(Iova iova, unsigned level, std::uint64_t value) {
    machine_.store64(entry(iova, level), value);
}

void SecondStage::map(Iova iova, Gpa target, Leaf leaf, std::uint64_t permissions) {
    const auto level = static_cast<unsigned>(leaf);
    const std::uint64_t size_bit = leaf == Leaf::page_4k ? 0 : vtd::kEntryLeaf;
    set_entry(iova, level, target.value() | permissions | size_bit);
}

void SecondStage::map_pages(Iova iova, Gpa target, std::size_t count) {
    std::size_t done = 0;
    while (done < count) {
        Gpa slot = entry(iova + done * kPageSize, 1);
        // To the end of this table without walking again.
        do {
            machine_.store64(slot, (target + done * kPageSize).value() | vtd::kEntryReadWrite);
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

ContextTables::ContextTables(QtestMachine& machine, PageAllocator& pages)
    : machine_(machine), pages_(pages), root_(pages.allocate()) {}

Gpa ContextTables::root_entry(std::uint8_t bus) const {
    return root_ + std::uint64_t{bus} * 16;
}

Gpa ContextTables::context_entry(SourceId function) {
    const auto found = tables_.find(function.bus());
    if (found != tables_.end()) {
        return found->second + std::uint64_t{function.devfn()} * 16;
    }
    const Gpa table = pages_.allocate();
    tables_.emplace(function.bus(), table);
    machine_.store64(root_entry(function.bus()), table.value() | kPresent);
    return table + std::uint64_t{function.devfn()} * 16;
}

void ContextTables::set(SourceId function, const Context& context) {
    const Gpa slot = context_entry(function);
    const std::uint64_t address_width = context.levels - 2;
    machine_.store64(slot + 8, std::uint64_t{context.domain} << 8 | address_width);
    machine_.store64(slot, context.table.value() | static_cast<std::uint64_t>(context.type) << 2 |
                               (context.fault_processing_disabled ? 2u : 0u) |
                               (context.present ? kPresent : 0));
}

void ContextTables::clear(SourceId function) {
    const Gpa slot = context_entry(function);
    machine_.store64(slot, 0);
    machine_.store64(slot + 8, 0);
}

InterruptTable::InterruptTable(QtestMachine& machine, PageAllocator& pages, unsigned size)
    : machine_(machine), size_(size) {
    const std::size_t bytes = std::size_t{16} << (size + 1);
    address_ = pages.allocate((bytes + kPageSize - 1) / kPageSize);
}

void InterruptTable::set_raw(std::uint16_t index, std::uint64_t low, std::uint64_t high) {
    const Gpa slot = address_ + std::uint64_t{index} * 16;
    machine_.store64(slot + 8, high);
    machine_.store64(slot, low);
}

void InterruptTable::set(std::uint16_t index, const InterruptEntry& entry) {
    const std::uint64_t destination =
        entry.extended_mode ? entry.destination : std::uint64_t{entry.destination & 0xff} << 8;
    const std::uint64_t low =
        (entry.present ? kPresent : 0) | (entry.fault_processing_disabled ? 1u << 1 : 0u) |
        (entry.logical_destination ? 1u << 2 : 0u) | (entry.redirection_hint ? 1u << 3 : 0u) |
        (entry.level_triggered ? 1u << 4 : 0u) | std::uint64_t{entry.delivery_mode} << 5 |
        std::uint64_t{entry.vector} << 16 | destination << 32;
    const std::uint64_t high = entry.source.value() | std::uint64_t{entry.source_qualifier} << 16 |
                               std::uint64_t{entry.source_validation} << 18;
    set_raw(index, low, high);
}

std::uint64_t remappable_address(std::uint16_t handle, bool subhandle_valid) {
    return 0xfee0'0000u | std::uint32_t{handle & 0x7fffu} << 5 | 1u << 4 |
           (subhandle_valid ? 1u << 3 : 0u) | std::uint32_t{handle} >> 15 << 2;
}

}  // namespace umbra::qtest
