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
    for (std::uint64_t offset = 0; offset < kPageSize; offset += 8) {
        memory.store(kRootTable + offset, std::uint64_t{0});
    }
    tables_.emplace(memory);
}

UnitFixture::Tables::Tables(FakeGuestMemory& memory)
    : pages(memory, kPagePool, Gpa(kMemoryBytes - 1)), contexts(memory, pages, kRootTable) {}

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
    return driver::fault_record_offset(read64(kCap)) + index * driver::kFaultRecordBytes;
}

unsigned UnitFixture::record_count() const {
    return driver::fault_record_count(read64(kCap));
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
    memory.store(kQueue + slot * Quads::kBytes, descriptor);
}

void UnitFixture::submit(const std::vector<Quads>& descriptors) {
    for (const Quads& descriptor : descriptors) {
        put(submitted_ % queue_slots_, descriptor);
        ++submitted_;
    }
    set_tail(submitted_ % queue_slots_);
}

Gpa UnitFixture::new_page() {
    return tables_->pages.allocate();
}

void UnitFixture::set_context(std::uint16_t device, std::uint16_t domain, Gpa table,
                              std::uint64_t flags) {
    tables_->contexts.set(
        SourceId(device),
        {.table = table,
         .domain = domain,
         .type = static_cast<driver::TranslationType>(flags >> driver::kContextTypeShift & 3),
         .fault_processing_disabled = (flags & driver::kContextFaultsDisabled) != 0});
}

void UnitFixture::clear_context(std::uint16_t device) {
    tables_->contexts.clear(SourceId(device));
}

driver::SecondStage UnitFixture::second_stage(Gpa root) {
    return {memory, tables_->pages, 48, root};
}

void UnitFixture::map(Gpa table, std::uint64_t iova, std::uint64_t gpa, unsigned level,
                      std::uint64_t access) {
    second_stage(table).map(Iova(iova), Gpa(gpa), static_cast<driver::Leaf>(level), access);
}

void UnitFixture::unmap(Gpa table, std::uint64_t iova, unsigned level) {
    second_stage(table).unmap(Iova(iova), static_cast<driver::Leaf>(level));
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
