// SPDX-License-Identifier: GPL-2.0-or-later
//
// Guest RAM for tests of tables: one buffer from guest-physical address 0, nothing above it, and
// pages that can be made to vanish. Counts loads, and can change memory in the middle of a read, as
// another guest CPU would.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <set>
#include <span>
#include <vector>

#include "plugin/vtd/guest_memory.h"
#include "plugin/vtd/types.h"

namespace umbra::vtd::testing {

class FlatMemory : public GuestMemory {
  public:
    explicit FlatMemory(std::size_t pages) : quads_(pages * kPageSize / sizeof(std::uint64_t)) {}

    void store(Gpa address, std::uint64_t value) { quads_.at(address.value() / 8) = value; }
    [[nodiscard]] std::uint64_t load(Gpa address) const { return quads_.at(address.value() / 8); }
    [[nodiscard]] bool is_ram(Gpa address) const {
        return address.value() / 8 < quads_.size() &&
               missing_.count(address.align_down(kPageSize)) == 0;
    }

    // Reads of this page fail from now on.
    void remove_page(Gpa page) { missing_.insert(page); }

    // Called before each access through the GuestMemory interface, with the number of accesses
    // before it.
    std::function<void(unsigned)> before_access;
    [[nodiscard]] unsigned accesses() const { return accesses_; }

    [[nodiscard]] bool read(Gpa address, std::span<std::byte> into) const override {
        notice_access();
        if (!is_ram(address) || !is_ram(address + (into.size() - 1))) {
            return false;
        }
        std::memcpy(into.data(), bytes() + address.value(), into.size());
        return true;
    }
    [[nodiscard]] bool write(Gpa address, std::span<const std::byte> from) override {
        if (!is_ram(address) || !is_ram(address + (from.size() - 1))) {
            return false;
        }
        std::memcpy(reinterpret_cast<std::byte*>(quads_.data()) + address.value(), from.data(),
                    from.size());
        return true;
    }
    [[nodiscard]] const std::byte* page_pointer(Gpa page) const override {
        notice_access();
        return is_ram(page) ? bytes() + page.value() : nullptr;
    }
    [[nodiscard]] std::uint64_t generation() const override { return 0; }

  private:
    [[nodiscard]] const std::byte* bytes() const {
        return reinterpret_cast<const std::byte*>(quads_.data());
    }
    void notice_access() const {
        if (before_access) {
            before_access(accesses_);
        }
        ++accesses_;
    }

    std::vector<std::uint64_t> quads_;
    std::set<Gpa> missing_;
    mutable unsigned accesses_ = 0;
};

}  // namespace umbra::vtd::testing
