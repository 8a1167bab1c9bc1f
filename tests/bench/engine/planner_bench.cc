// SPDX-License-Identifier: GPL-2.0-or-later
//
// Parts of a sync beside the comparison: the look-up of leaves in the mirror, and the plan of unmap
// calls for 256 removals.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <random>
#include <vector>

#include "plugin/shadow/delta.h"
#include "plugin/shadow/mirror.h"
#include "plugin/shadow/planner.h"
#include "plugin/shadow/ram_map.h"
#include "plugin/shadow/ram_snapshot.h"
#include "tests/support/fake_guest_memory.h"

namespace umbra::bench {
namespace {

constexpr unsigned kLevels = 4;
constexpr std::uint64_t kReadWrite = 3;
constexpr Iova kFirst(0x1'0000'0000);
constexpr std::size_t kRemovals = 256;
constexpr std::uint64_t kRamBytes = std::uint64_t{1} << 40;

class Ram final : public shadow::RamMap {
  public:
    [[nodiscard]] std::uint64_t generation() const override { return 1; }
    void list(std::vector<shadow::RamRun>& runs) const override {
        runs = {{Gpa(0), kRamBytes, HostAddress(0x7000'0000'0000), false}};
    }
};

// A mirror with every `step`th of `pages` leaves in it, as a sync leaves it behind. The guest's own
// tables are never looked at here, so that one page of guest RAM stands for all of them.
class Mirrored {
  public:
    Mirrored(std::size_t pages, std::size_t step, bool joined)
        : mirror_(memory_, arena_, budget_, budget_.limit, {48, false}, Gpa(0), kLevels) {
        for (std::size_t page = 0; page < pages; page += step) {
            shadow::Table& table = leaf_table(iova(page));
            const unsigned slot = vtd::level_index(iova(page), 1);
            table.copy[slot] = page * kPageSize | kReadWrite;
            ++table.leaves;
            if (joined && page > 0) {
                table.joined.set(slot);
            }
        }
        shadow::RamSnapshot previous;
        snapshot_.update(ram_, previous);
    }

    [[nodiscard]] static Iova iova(std::size_t page) { return kFirst + page * kPageSize; }
    [[nodiscard]] const shadow::Mirror& mirror() const { return mirror_; }
    [[nodiscard]] const shadow::RamSnapshot& ram() const { return snapshot_; }
    // As the sync that finds the page gone does.
    void clear(std::size_t page) {
        shadow::Table& table = leaf_table(iova(page));
        const unsigned slot = vtd::level_index(iova(page), 1);
        table.copy[slot] = 0;
        table.joined.clear(slot);
        --table.leaves;
    }

  private:
    shadow::Table& leaf_table(Iova at) {
        shadow::Table* table = &mirror_.root();
        while (table->level > 1) {
            const unsigned slot = vtd::level_index(at, table->level);
            shadow::Table* child = table->child(slot);
            if (child == nullptr) {
                // A place of its own for each, so that none is its own ancestor.
                next_page_ = next_page_ + kPageSize;
                child = mirror_.add_child(*table, slot, next_page_, Access::read_write);
                if (child == nullptr) {
                    std::abort();
                }
            }
            table = child;
        }
        return *table;
    }

    testing::FakeGuestMemory memory_{8192 * kPageSize};
    shadow::PageArena arena_;
    shadow::TableBudget budget_{.limit = 8192};
    shadow::Mirror mirror_;
    Gpa next_page_{};
    Ram ram_;
    shadow::RamSnapshot snapshot_;
};

// Argument: mapped pages, visited in random order.
void mirror_look_up(benchmark::State& state) {
    const auto pages = static_cast<std::size_t>(state.range(0));
    const Mirrored domain(pages, 1, false);
    std::mt19937 random(1);
    std::vector<Iova> order(4096);
    for (Iova& iova : order) {
        iova = Mirrored::iova(random() % pages);
    }
    std::size_t turn = 0;
    for ([[maybe_unused]] auto _ : state) {
        benchmark::DoNotOptimize(domain.mirror().leaf_at(order[turn++ % order.size()]));
    }
}
BENCHMARK(mirror_look_up)->ArgName("pages")->Arg(4096)->Arg(65'536)->Arg(1'048'576);

// What lies around each of the 256 pages that go.
enum Around {
    kNothing,  // one call for all
    kLive,     // a call each
    kJoined,   // all were mapped by one call: it is unmapped whole, and what stays is mapped again
};

void plan_256_removals(benchmark::State& state) {
    constexpr std::size_t kStep = 8;
    const auto around = static_cast<Around>(state.range(0));
    Mirrored domain(kRemovals * kStep, around == kNothing ? kStep : 1, around == kJoined);
    std::vector<shadow::Removal> removals;
    for (std::size_t i = 0; i < kRemovals; ++i) {
        const std::size_t page = i * kStep + kStep / 2 * (around == kNothing ? 0 : 1);
        domain.clear(page);
        removals.push_back({.iova = Mirrored::iova(page),
                            .bytes = kPageSize,
                            .mapped_bytes = kPageSize,
                            .mappings = around == kJoined ? 0u : 1u,
                            .joined_before = around == kJoined,
                            .joined_after = around == kJoined});
    }
    shadow::Plan plan;
    for ([[maybe_unused]] auto _ : state) {
        plan.build(removals, domain.mirror(), domain.ram());
        benchmark::DoNotOptimize(plan.calls().data());
    }
    state.counters["calls"] = static_cast<double>(plan.calls().size());
}
BENCHMARK(plan_256_removals)->ArgName("around")->Arg(kNothing)->Arg(kLive)->Arg(kJoined);

}  // namespace
}  // namespace umbra::bench
