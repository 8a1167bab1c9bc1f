// SPDX-License-Identifier: GPL-2.0-or-later
//
// Second-stage tables in the memory of a FakeMachine, as guest software builds them. Allocates
// table pages, writes entries, and walks the tables in the slow and simple way that tests compare
// with.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "plugin/vtd/second_stage.h"
#include "tests/support/driver/layout.h"
#include "tests/support/fake_machine.h"

namespace umbra::testing {

class GuestTables {
  public:
    // Takes pages from `first_page` on of the machine's table memory.
    GuestTables(FakeMachine& machine, unsigned levels = 4, std::size_t first_page = 0)
        : machine_(machine), levels_(levels) {
        for (std::size_t page = machine.memory.pages(); page > first_page; --page) {
            pages_.emplace_back((page - 1) * kPageSize);
        }
        free_ = pages_;
        root_ = allocate();
    }

    [[nodiscard]] Gpa root() const { return root_; }
    [[nodiscard]] unsigned levels() const { return levels_; }

    // A page of zeros that no table leads to. When free pages run out, pages are used again that no
    // table leads to any more.
    Gpa allocate() {
        if (free_.empty()) {
            collect();
        }
        const Gpa page = free_.back();
        free_.pop_back();
        for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
            *machine_.memory.entry(page, slot) = 0;
        }
        return page;
    }

    static std::uint64_t leaf(Gpa target, unsigned level, Access access = Access::read_write) {
        return target.value() | static_cast<std::uint64_t>(access) |
               (level > 1 ? driver::kEntryLeaf : 0);
    }
    static std::uint64_t table(Gpa page, Access access = Access::read_write) {
        return page.value() | static_cast<std::uint64_t>(access);
    }

    // The entry of `level` for `iova`. Missing tables above it are made. No leaf may stand in their
    // place.
    std::uint64_t& entry(Iova iova, unsigned level) {
        Gpa page = root_;
        for (unsigned at = levels_; at > level; --at) {
            std::uint64_t& value = *machine_.memory.entry(page, driver::table_index(iova, at));
            if ((value & driver::kEntryReadWrite) == 0) {
                value = table(allocate());
            }
            page = Gpa(value & driver::kEntryAddress);
        }
        return *machine_.memory.entry(page, driver::table_index(iova, level));
    }

    void map(Iova iova, Gpa target, Access access = Access::read_write, unsigned level = 1) {
        entry(iova, level) = leaf(target, level, access);
    }
    void map_pages(Iova iova, Gpa target, std::size_t pages, Access access = Access::read_write) {
        for (std::size_t i = 0; i < pages; ++i) {
            map(iova + i * kPageSize, target + i * kPageSize, access);
        }
    }
    void unmap(Iova iova, unsigned level = 1) { entry(iova, level) = 0; }
    void unmap_pages(Iova iova, std::size_t pages) {
        for (std::size_t i = 0; i < pages; ++i) {
            unmap(iova + i * kPageSize);
        }
    }

    // The host memory that the tables give for `iova` at this moment.
    [[nodiscard]] FakeRamMap::Target walk(Iova iova) const {
        Access access = Access::read_write;
        Gpa page = root_;
        std::array<Gpa, vtd::kMaxLevels + 1> path{};
        for (unsigned level = levels_; level > 0; --level) {
            // A table that is its own ancestor is not followed.
            for (unsigned above = levels_; above > level; --above) {
                if (path.at(above) == page) {
                    return {};
                }
            }
            path.at(level) = page;
            const auto value = machine_.memory.read_u64(
                page + std::uint64_t{driver::table_index(iova, level)} * 8);
            if (!value) {
                return {};
            }
            const vtd::DecodedEntry found = FakeMachine::format.decode(level, *value);
            access = access & found.access;
            if (found.kind == vtd::DecodedEntry::Kind::leaf) {
                const std::uint64_t offset = iova.offset_in(vtd::level_span(level));
                return machine_.ram.resolve(found.address + offset, access);
            }
            if (found.kind != vtd::DecodedEntry::Kind::table) {
                return {};
            }
            page = found.address;
        }
        return {};
    }

  private:
    // Frees each page that the top-level table does not lead to.
    void collect() {
        std::vector<Gpa> used;
        reach(root_, levels_, used);
        for (const Gpa page : pages_) {
            if (std::find(used.begin(), used.end(), page) == used.end()) {
                free_.push_back(page);
            }
        }
    }
    void reach(Gpa page, unsigned level, std::vector<Gpa>& used) {
        if (!machine_.memory.contains(page) ||
            std::find(used.begin(), used.end(), page) != used.end()) {
            return;
        }
        used.push_back(page);
        for (unsigned slot = 0; level > 1 && slot < kEntriesPerTable; ++slot) {
            const vtd::DecodedEntry found =
                FakeMachine::format.decode(level, *machine_.memory.entry(page, slot));
            if (found.kind == vtd::DecodedEntry::Kind::table) {
                reach(found.address, level - 1, used);
            }
        }
    }

    FakeMachine& machine_;
    const unsigned levels_;
    std::vector<Gpa> pages_;
    std::vector<Gpa> free_;
    Gpa root_;
};

// The host memory that a recorder holds for `iova`.
inline FakeRamMap::Target mapped(const host::Recorder& recorder, Iova iova) {
    const auto found = recorder.mappings().find(iova);
    return found ? FakeRamMap::Target{found->host + (iova - found->iova), found->access}
                 : FakeRamMap::Target{};
}

}  // namespace umbra::testing
