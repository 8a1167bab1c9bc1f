// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/bench/engine/guest.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "plugin/vtd/second_stage.h"
#include "plugin/vtd/spec/registers.h"
#include "plugin/vtd/spec/tables.h"

namespace umbra::bench {

namespace {

constexpr std::uint64_t kReadWrite =
    vtd::spec::SecondStageEntry::kRead | vtd::spec::SecondStageEntry::kWrite;
constexpr std::uint64_t kFourLevels = 2;  // AW of a context entry

}  // namespace

bool FlatRam::contains(Gpa address, std::size_t bytes) const {
    const std::size_t size = quads_.size() * sizeof(std::uint64_t);
    return bytes <= size && address.value() <= size - bytes;
}

bool FlatRam::read(Gpa address, std::span<std::byte> into) const {
    if (!contains(address, into.size())) {
        return false;
    }
    std::memcpy(into.data(), std::as_bytes(std::span(quads_)).data() + address.value(),
                into.size());
    return true;
}

bool FlatRam::write(Gpa address, std::span<const std::byte> from) {
    if (!contains(address, from.size())) {
        return false;
    }
    std::memcpy(std::as_writable_bytes(std::span(quads_)).data() + address.value(), from.data(),
                from.size());
    return true;
}

const std::byte* FlatRam::page_pointer(Gpa page) const {
    return contains(page, kPageSize) ? std::as_bytes(std::span(quads_)).data() + page.value()
                                     : nullptr;
}

Guest::Guest(std::size_t pages)
    : ram_(pages), table_(new_page()), unit_(vtd::UnitProperties{}, {ram_, messages_}) {
    namespace offset = vtd::spec::offset;
    const Gpa root = new_page();
    const Gpa contexts = new_page();
    ram_.store(root + std::uint64_t{kDevice.bus()} * vtd::spec::RootEntry::kBytes,
               contexts.value() | vtd::spec::RootEntry::kPresent);
    const Gpa entry = contexts + std::uint64_t{kDevice.devfn()} * vtd::spec::ContextEntry::kBytes;
    ram_.store(
        entry + sizeof(std::uint64_t),
        static_cast<std::uint64_t>(kDomain) << vtd::spec::ContextEntry::kDomainShift | kFourLevels);
    ram_.store(entry, table_.value() | vtd::spec::ContextEntry::kPresent);

    unit_.mmio_write(offset::kRootTableAddress, root.value(), 8);
    unit_.mmio_write(offset::kGlobalCommand, vtd::spec::global::kRootTablePointer, 4);
    unit_.mmio_write(offset::kGlobalCommand, vtd::spec::global::kTranslation, 4);
}

Gpa Guest::new_page() {
    const Gpa page = next_page_;
    next_page_ = next_page_ + kPageSize;
    if (ram_.page_pointer(page) == nullptr) {
        std::fputs("the benchmark's guest has too little RAM for its tables\n", stderr);
        std::abort();
    }
    return page;
}

void Guest::map(Iova iova, Gpa target, unsigned level) {
    Gpa table = table_;
    for (unsigned at = kLevels; at > level; --at) {
        const Gpa entry =
            table + std::uint64_t{vtd::level_index(iova, at)} * vtd::spec::SecondStageEntry::kBytes;
        if (ram_.load(entry) == 0) {
            ram_.store(entry, new_page().value() | kReadWrite);
        }
        table = Gpa(ram_.load(entry) & vtd::spec::SecondStageEntry::kAddress);
    }
    ram_.store(
        table + std::uint64_t{vtd::level_index(iova, level)} * vtd::spec::SecondStageEntry::kBytes,
        target.value() | kReadWrite | (level > 1 ? vtd::spec::SecondStageEntry::kPageSize : 0));
}

}  // namespace umbra::bench
