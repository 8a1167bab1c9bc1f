// SPDX-License-Identifier: GPL-2.0-or-later
//
// Remapping of one interrupt message: the entry is read from guest memory each time.
#include <benchmark/benchmark.h>

#include "plugin/vtd/interrupt_remapping.h"
#include "plugin/vtd/spec/tables.h"
#include "tests/bench/engine/guest.h"

namespace umbra::bench {
namespace {

void BM_RemapInterrupt(benchmark::State& state) {
    constexpr std::uint64_t kMessage = 0xfee00010 | 5 << 5;  // remappable, handle 5
    constexpr std::uint64_t kVector = 0x41;
    using Entry = vtd::spec::InterruptEntry;

    FlatRam ram(4);
    const vtd::InterruptTable table{.address = Gpa(kPageSize), .entries = 256};
    const Gpa entry = table.address + std::uint64_t{5} * Entry::kBytes;
    ram.store(entry, kVector << Entry::kVectorShift | Entry::kPresent);
    ram.store(entry + sizeof(std::uint64_t),
              Guest::kDevice.value() | std::uint64_t{1} << Entry::kSourceValidationShift);
    const vtd::InterruptRemapper remapper(ram);
    for ([[maybe_unused]] auto _ : state) {
        benchmark::DoNotOptimize(remapper.remap(table, Guest::kDevice, kMessage, 0));
    }
    if (!remapper.remap(table, Guest::kDevice, kMessage, 0).ok) {
        state.SkipWithError("the message was refused");
    }
}
BENCHMARK(BM_RemapInterrupt);

}  // namespace
}  // namespace umbra::bench
