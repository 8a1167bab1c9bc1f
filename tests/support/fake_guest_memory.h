// SPDX-License-Identifier: GPL-2.0-or-later
//
// Guest RAM for tests: one buffer from a guest-physical address of the test's choice on. Below and
// above the buffer there is no memory. A journal can record the writes of the code under test.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "plugin/vtd/guest_memory.h"
#include "plugin/vtd/types.h"
#include "tests/support/driver/memory.h"
#include "tests/support/journal.h"

namespace umbra::testing {

class FakeGuestMemory : public GuestMemory, public driver::Memory {
  public:
    // `base` and `bytes` are multiples of 4 KiB. `journal` may be null. Each write of 4 bytes
    // through GuestMemory adds the line "memory ADDRESS = VALUE" to the journal.
    explicit FakeGuestMemory(std::size_t bytes, Gpa base = Gpa(), Journal* journal = nullptr)
        : base_(base), words_(bytes / sizeof(std::uint64_t)), journal_(journal) {}

    // Guest software's own stores and loads.
    template <class Value>
    void store(Gpa address, Value value) {
        std::memcpy(bytes().subspan(address - base_, sizeof value).data(), &value, sizeof value);
    }
    template <class Value>
    [[nodiscard]] Value load(Gpa address) const {
        Value value;
        std::memcpy(&value, bytes().subspan(address - base_, sizeof value).data(), sizeof value);
        return value;
    }
    [[nodiscard]] std::uint64_t load64(Gpa address) const override {
        return load<std::uint64_t>(address);
    }
    void store64(Gpa address, std::uint64_t value) override { store(address, value); }
    [[nodiscard]] Gpa end() const { return base_ + bytes().size(); }

    [[nodiscard]] bool read(Gpa address, std::span<std::byte> into) const override {
        if (!contains(address, into.size())) {
            return false;
        }
        std::memcpy(into.data(), bytes().data() + (address - base_), into.size());
        return true;
    }

    [[nodiscard]] bool write(Gpa address, std::span<const std::byte> from) override {
        if (!contains(address, from.size())) {
            return false;
        }
        std::memcpy(bytes().data() + (address - base_), from.data(), from.size());
        if (journal_ != nullptr && from.size() == sizeof(std::uint32_t)) {
            journal_->push_back("memory " + hex(address.value()) + " = " +
                                hex(load<std::uint32_t>(address)));
        }
        return true;
    }

    [[nodiscard]] const std::byte* page_pointer(Gpa page) const override {
        return contains(page, kPageSize) ? bytes().data() + (page - base_) : nullptr;
    }

    [[nodiscard]] std::uint64_t generation() const override { return 0; }

  private:
    [[nodiscard]] bool contains(Gpa address, std::size_t size) const {
        const std::size_t total = bytes().size();
        return address >= base_ && size <= total && address - base_ <= total - size;
    }
    [[nodiscard]] std::span<std::byte> bytes() { return std::as_writable_bytes(std::span(words_)); }
    [[nodiscard]] std::span<const std::byte> bytes() const {
        return std::as_bytes(std::span(words_));
    }

    Gpa base_;
    std::vector<std::uint64_t> words_;
    Journal* journal_;
};

}  // namespace umbra::testing
