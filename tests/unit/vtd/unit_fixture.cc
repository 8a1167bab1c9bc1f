// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/unit/vtd/unit_fixture.h"

namespace umbra::vtd::testing {
namespace {

constexpr Gpa kPagePool{0x200000};

}  // namespace

void UnitFixture::build(const UnitProperties& properties) {
    ASSERT_EQ(properties.error(), nullptr);
    unit = std::make_unique<Unit>(
        properties, Unit::Ports{.memory = memory, .messages = messages, .observer = &observer});
    journal.clear();
    messages.sent.clear();
    queue_slots_ = 0;
    submitted_ = 0;
    next_page_ = kPagePool;
    for (std::uint64_t offset = 0; offset < kPageSize; offset += 8) {
        memory.store(kRootTable + offset, std::uint64_t{0});
    }
}

void UnitFixture::unmask_fault_event() {
    write32(kFedata, kFaultData);
    write32(kFeaddr, static_cast<std::uint32_t>(kFaultMessage));
    write32(kFeuaddr, 0);
    write32(kFectl, 0);
}

void UnitFixture::unmask_completion_event() {
    write32(kIedata, kCompletionData);
    write32(kIeaddr, static_cast<std::uint32_t>(kCompletionMessage));
    write32(kIeuaddr, 0);
    write32(kIectl, 0);
}

std::uint32_t UnitFixture::record_offset(unsigned index) const {
    return static_cast<std::uint32_t>((read64(kCap) >> 24 & 0x3ff) * 16) + index * 16;
}

unsigned UnitFixture::record_count() const {
    return static_cast<unsigned>(read64(kCap) >> 40 & 0xff) + 1;
}

Quads UnitFixture::record(unsigned index) const {
    return {read64(record_offset(index)), read64(record_offset(index) + 8)};
}

void UnitFixture::clear_all_faults() {
    for (unsigned i = 0; i < record_count(); ++i) {
        clear_record(i);
    }
    write32(kFsts, kPfo | kIqe);
}

void UnitFixture::start_queue(unsigned size_field) {
    queue_slots_ = std::uint64_t{256} << size_field;
    submitted_ = 0;
    write64(kIqt, 0);
    write64(kIqa, kQueue.value() | size_field);
    command(kQie);
    ASSERT_NE(read32(kGsts) & kQie, 0U);
}

void UnitFixture::put(std::uint64_t slot, Quads descriptor) {
    memory.store(kQueue + slot * 16, descriptor);
}

void UnitFixture::submit(const std::vector<Quads>& descriptors) {
    for (const Quads& descriptor : descriptors) {
        put(submitted_ % queue_slots_, descriptor);
        ++submitted_;
    }
    set_tail(submitted_ % queue_slots_);
}

Gpa UnitFixture::new_page() {
    const Gpa page = next_page_;
    next_page_ = next_page_ + kPageSize;
    for (std::uint64_t offset = 0; offset < kPageSize; offset += 8) {
        memory.store(page + offset, std::uint64_t{0});
    }
    return page;
}

void UnitFixture::set_context(std::uint16_t device, std::uint16_t domain, Gpa table,
                              std::uint64_t flags) {
    const Gpa root = kRootTable + std::uint64_t{16} * (device >> 8);
    auto contexts = Gpa(memory.load<std::uint64_t>(root) & ~std::uint64_t{0xfff});
    if (contexts == Gpa()) {
        contexts = new_page();
        memory.store(root, contexts.value() | 1);
    }
    const Gpa entry = contexts + std::uint64_t{16} * (device & 0xff);
    memory.store(entry + 8, std::uint64_t{domain} << 8 | 2);
    memory.store(entry, table.value() | flags | 1);
}

void UnitFixture::clear_context(std::uint16_t device) {
    const Gpa root = kRootTable + std::uint64_t{16} * (device >> 8);
    const auto contexts = Gpa(memory.load<std::uint64_t>(root) & ~std::uint64_t{0xfff});
    ASSERT_NE(contexts, Gpa());
    memory.store(contexts + std::uint64_t{16} * (device & 0xff), Quads());
}

Gpa UnitFixture::entry_of(Gpa table, std::uint64_t iova, unsigned level) {
    for (unsigned above = 4; above > level; --above) {
        const Gpa entry = table + (iova >> (12 + 9 * (above - 1)) & 0x1ff) * 8;
        auto value = memory.load<std::uint64_t>(entry);
        if (value == 0) {
            value = new_page().value() | 3;
            memory.store(entry, value);
        }
        table = Gpa(value & ~std::uint64_t{0xfff});
    }
    return table + (iova >> (12 + 9 * (level - 1)) & 0x1ff) * 8;
}

void UnitFixture::map(Gpa table, std::uint64_t iova, std::uint64_t gpa, unsigned level,
                      std::uint64_t access) {
    const std::uint64_t page_size = level > 1 ? 1u << 7 : 0;
    memory.store(entry_of(table, iova, level), gpa | access | page_size);
}

void UnitFixture::unmap(Gpa table, std::uint64_t iova, unsigned level) {
    memory.store(entry_of(table, iova, level), std::uint64_t{0});
}

void UnitFixture::start_translation() {
    write64(kRtaddr, kRootTable.value());
    command(kSrtp);
    ASSERT_NE(read32(kGsts) & kSrtp, 0U);
    command(kTe);
    ASSERT_NE(read32(kGsts) & kTe, 0U);
}

void UnitFixture::start_remapping() {
    write64(kIrta, kInterruptTable.value() | 7);
    command(kSirtp);
    ASSERT_NE(read32(kGsts) & kSirtp, 0U);
    command(kIre);
    ASSERT_NE(read32(kGsts) & kIre, 0U);
}

}  // namespace umbra::vtd::testing
