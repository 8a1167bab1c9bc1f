// SPDX-License-Identifier: GPL-2.0-or-later
//
// The cost of an invalidation in the IOTLB, by the number of entries in use. On a machine with
// passed-through devices most domains have no entry.
#include <benchmark/benchmark.h>

#include "plugin/vtd/iotlb.h"

namespace umbra::bench {
namespace {

using vtd::Iotlb;

constexpr DomainId kDomain{1};
constexpr DomainId kOther{2};

void fill(Iotlb& iotlb, DomainId domain, std::uint64_t page) {
    vtd::WalkResult walk;
    walk.ok = walk.cacheable = true;
    walk.level = 1;
    walk.granted = Access::read_write;
    walk.page_mask = kPageSize - 1;
    walk.address = Gpa(page * kPageSize);
    iotlb.insert(domain, Iova(page * kPageSize), walk, iotlb.generation());
}

// Argument: entries of the domain.
void BM_InvalidatePage(benchmark::State& state) {
    Iotlb iotlb;
    for (std::int64_t page = 0; page < state.range(0); ++page) {
        fill(iotlb, kDomain, static_cast<std::uint64_t>(page));
    }
    // A page that is not held: the entries stay for the next turn.
    const auto absent = IovaRange::pages(Iova(std::uint64_t{1} << 40), 0);
    for ([[maybe_unused]] auto _ : state) {
        iotlb.invalidate_pages(kDomain, absent);
    }
}
BENCHMARK(BM_InvalidatePage)->ArgName("held")->Arg(0)->Arg(2048);

// 256 MiB in pages of 4 KiB.
void BM_InvalidateRange(benchmark::State& state) {
    constexpr unsigned kAddressMask = 16;
    Iotlb iotlb;
    for (std::int64_t page = 0; page < state.range(0); ++page) {
        fill(iotlb, kDomain, static_cast<std::uint64_t>(page));
    }
    const auto absent = IovaRange::pages(Iova(std::uint64_t{1} << 40), kAddressMask);
    for ([[maybe_unused]] auto _ : state) {
        iotlb.invalidate_pages(kDomain, absent);
    }
}
BENCHMARK(BM_InvalidateRange)->ArgName("held")->Arg(0)->Arg(2048);

// A domain with nothing in the IOTLB beside one that fills it, and that one.
void BM_InvalidateOtherDomain(benchmark::State& state) {
    Iotlb iotlb;
    for (std::uint64_t page = 0; page < iotlb.capacity(); ++page) {
        fill(iotlb, kDomain, page);
    }
    for ([[maybe_unused]] auto _ : state) {
        iotlb.invalidate_domain(kOther);
    }
}
BENCHMARK(BM_InvalidateOtherDomain);

// One entry to drop, among as many of another domain as there is place for.
void BM_InvalidateDomain(benchmark::State& state) {
    Iotlb iotlb;
    for (std::uint64_t page = 0; page < iotlb.capacity(); ++page) {
        fill(iotlb, kOther, page);
    }
    for ([[maybe_unused]] auto _ : state) {
        fill(iotlb, kDomain, 5);
        iotlb.invalidate_domain(kDomain);
    }
}
BENCHMARK(BM_InvalidateDomain);

}  // namespace
}  // namespace umbra::bench
