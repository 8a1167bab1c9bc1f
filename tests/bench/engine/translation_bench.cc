// SPDX-License-Identifier: GPL-2.0-or-later
//
// Unit::translate, the whole path of an emulated device's DMA: context cache, IOTLB, and on a miss
// the walk and the fill, with counting.
#include <benchmark/benchmark.h>

#include <memory>

#include "plugin/vtd/counters.h"
#include "plugin/vtd/second_stage.h"
#include "tests/bench/engine/guest.h"

namespace umbra::bench {
namespace {

constexpr Iova kFirst(0x7f'0000'0000);
constexpr Gpa kTarget(0x1'0000'0000);

// Gives the number of IOTLB misses since the last call.
class Misses {
  public:
    explicit Misses(Guest& guest) : counters_(guest.unit().counters()), last_(now()) {}
    [[nodiscard]] std::uint64_t take() {
        const std::uint64_t before = last_;
        last_ = now();
        return last_ - before;
    }

  private:
    [[nodiscard]] std::uint64_t now() const { return counters_.iotlb_misses(); }
    const vtd::Counters& counters_;
    std::uint64_t last_;
};

void map_pages(Guest& guest, std::uint64_t pages, driver::Leaf leaf) {
    const std::uint64_t span = driver::leaf_size(leaf);
    for (std::uint64_t page = 0; page < pages; ++page) {
        guest.map(kFirst + page * span, kTarget + page * span, leaf);
    }
}

// `order` is an odd step through the pages, so that a power-of-two number of them is all visited.
void translate_in_turn(benchmark::State& state, Guest& guest, std::uint64_t pages,
                       std::uint64_t span, std::uint64_t order) {
    std::uint64_t turn = 0;
    for ([[maybe_unused]] auto _ : state) {
        const Iova iova = kFirst + (turn++ * order & (pages - 1)) * span + 0x48;
        benchmark::DoNotOptimize(guest.unit().translate(Guest::kDevice, iova, Access::read));
    }
}

// Arguments: number of pages in turn, level of their leaves (1: 4 KiB, 2: 2 MiB, 3: 1 GiB).
void BM_TranslateHit(benchmark::State& state) {
    const auto pages = static_cast<std::uint64_t>(state.range(0));
    const auto leaf = static_cast<driver::Leaf>(state.range(1));
    Guest guest;
    map_pages(guest, pages, leaf);
    const std::uint64_t span = driver::leaf_size(leaf);
    for (std::uint64_t page = 0; page < pages; ++page) {
        benchmark::DoNotOptimize(
            guest.unit().translate(Guest::kDevice, kFirst + page * span, Access::read));
    }
    Misses misses(guest);
    translate_in_turn(state, guest, pages, span, 1);
    if (misses.take() != 0) {
        state.SkipWithError("not every translation was a hit");
    }
}
BENCHMARK(BM_TranslateHit)
    ->ArgNames({"pages", "level"})
    ->Args({1, 1})
    ->Args({64, 1})
    ->Args({4096, 1})
    ->Args({16, 2})
    ->Args({4, 3});

// Far more pages than the IOTLB holds, in turn, so that each has been displaced when its turn
// comes. Arguments: number of pages, and the step from one to the next.
void BM_TranslateMiss(benchmark::State& state) {
    const auto pages = static_cast<std::uint64_t>(state.range(0));
    Guest guest(pages / kEntriesPerTable + 64);
    map_pages(guest, pages, driver::Leaf::page_4k);
    Misses misses(guest);
    translate_in_turn(state, guest, pages, kPageSize, static_cast<std::uint64_t>(state.range(1)));
    if (misses.take() != static_cast<std::uint64_t>(state.iterations())) {
        state.SkipWithError("not every translation was a miss");
    }
}
BENCHMARK(BM_TranslateMiss)
    ->ArgNames({"pages", "step"})
    ->Args({1 << 16, 1})
    ->Args({1 << 16, 40503})
    ->Args({1 << 20, 1})
    ->Args({1 << 20, 648055});

// Several threads hit in one unit. Shared by the threads of one run.
void BM_TranslateHitThreads(benchmark::State& state) {
    constexpr std::uint64_t kPages = 64;
    static std::unique_ptr<Guest> guest;
    if (state.thread_index() == 0) {
        guest = std::make_unique<Guest>();
        map_pages(*guest, kPages, driver::Leaf::page_4k);
    }
    std::uint64_t turn = 0;
    for ([[maybe_unused]] auto _ : state) {
        const Iova iova = kFirst + (turn++ & (kPages - 1)) * kPageSize;
        benchmark::DoNotOptimize(guest->unit().translate(Guest::kDevice, iova, Access::read));
    }
    if (state.thread_index() == 0) {
        guest.reset();
    }
}
BENCHMARK(BM_TranslateHitThreads)->Threads(1)->Threads(2);

// The walk alone. Argument: levels.
void BM_Walk(benchmark::State& state) {
    const auto levels = static_cast<unsigned>(state.range(0));
    Guest guest;
    // Index 0 at level 4, so that the level-3 table is the first table allocated below it.
    guest.map(Iova(0x1234'5000), kTarget);
    const Gpa level_3(guest.ram().load64(guest.table()) & driver::kEntryAddress);
    const vtd::SecondStage walker(guest.ram(), vtd::EntryFormat(48, false), true);
    const Gpa root = levels == 4 ? guest.table() : level_3;
    for ([[maybe_unused]] auto _ : state) {
        benchmark::DoNotOptimize(walker.walk(root, levels, Iova(0x1234'5000), Access::read));
    }
    if (!walker.walk(root, levels, Iova(0x1234'5000), Access::read).ok) {
        state.SkipWithError("the walk found no leaf");
    }
}
BENCHMARK(BM_Walk)->ArgName("levels")->Arg(3)->Arg(4);

}  // namespace
}  // namespace umbra::bench
