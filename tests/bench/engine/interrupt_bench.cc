// SPDX-License-Identifier: GPL-2.0-or-later
//
// Remapping of one interrupt message: the entry is read from guest memory each time.
#include <benchmark/benchmark.h>

#include "plugin/vtd/interrupt_remapping.h"
#include "tests/bench/engine/guest.h"
#include "tests/support/driver/interrupt_table.h"

namespace umbra::bench {
namespace {

void BM_RemapInterrupt(benchmark::State& state) {
    constexpr std::uint16_t kHandle = 5;
    const std::uint64_t message = driver::remappable_address(kHandle);

    testing::FakeGuestMemory ram(4 * kPageSize);
    driver::PageAllocator pages(ram, Gpa(kPageSize), ram.end() - 1);
    driver::InterruptTable entries(ram, pages, 7);
    entries.set(kHandle, {.vector = 0x41, .source = Guest::kDevice, .source_validation = 1});
    const vtd::InterruptTable table{.address = entries.address(), .entries = 256};
    const vtd::InterruptRemapper remapper(ram);
    for ([[maybe_unused]] auto _ : state) {
        benchmark::DoNotOptimize(remapper.remap(table, Guest::kDevice, message, 0));
    }
    if (!remapper.remap(table, Guest::kDevice, message, 0).ok) {
        state.SkipWithError("the message was refused");
    }
}
BENCHMARK(BM_RemapInterrupt);

}  // namespace
}  // namespace umbra::bench
