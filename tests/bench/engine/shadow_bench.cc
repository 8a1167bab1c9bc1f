// SPDX-License-Identifier: GPL-2.0-or-later
//
// The cost of a sync with a host mapper that does nothing: comparison against a memcmp of the same
// bytes, page-selective maps and unmaps, scattered unmaps, and the memory of the mirror.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "plugin/shadow/compare.h"
#include "plugin/shadow/domain.h"
#include "plugin/shadow/manager.h"
#include "tests/support/driver/layout.h"

namespace umbra {
namespace {

constexpr vtd::EntryFormat kFormat{48, false};
constexpr DomainId kDomain{1};
constexpr vtd::Invalidation kWholeDomain = vtd::Invalidation::iotlb_domain(kDomain);
constexpr Gpa kRam{0x10'0000'0000};
constexpr std::uint64_t kRamBytes = std::uint64_t{64} << 30;
constexpr std::uint64_t kNoDeadline = ~std::uint64_t{0};

// How the guest's table pages and target pages lie.
enum Layout { kContiguous, kFragmented };

class Memory final : public GuestMemory {
  public:
    explicit Memory(std::size_t pages)
        : bytes_(pages * kPageSize),
          base_(static_cast<std::byte*>(
              mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
        if (base_ == MAP_FAILED) {
            std::abort();
        }
        // Guest RAM mostly consists of huge pages.
        madvise(base_, bytes_, MADV_HUGEPAGE);
        std::memset(base_, 0, bytes_);
    }
    ~Memory() override { munmap(base_, bytes_); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    [[nodiscard]] bool read(Gpa, std::span<std::byte>) const override { return false; }
    [[nodiscard]] bool write(Gpa, std::span<const std::byte>) override { return false; }
    [[nodiscard]] const std::byte* page_pointer(Gpa page) const override {
        return page.value() < bytes_ ? base_ + page.value() : nullptr;
    }
    [[nodiscard]] std::uint64_t generation() const override { return 0; }
    [[nodiscard]] std::uint64_t* entry(Gpa table, unsigned slot) {
        return reinterpret_cast<std::uint64_t*>(base_ + table.value()) + slot;
    }

  private:
    std::size_t bytes_;
    std::byte* base_;
};

class Ram final : public shadow::RamMap {
  public:
    [[nodiscard]] std::uint64_t generation() const override { return 1; }
    void list(std::vector<shadow::RamRun>& runs) const override {
        runs = {{kRam, kRamBytes, HostAddress(0x7f00'0000'0000), false}};
    }
};

class Silence final : public shadow::Events {
  public:
    void trouble(const shadow::Event&) override {}
    void healed(DomainId, shadow::Trouble) override {}
    void stop_machine(const shadow::Event&) override {}
};

// Counts calls and does nothing.
class NullMapper final : public shadow::HostMapper {
  public:
    shadow::HostResult map(const shadow::HostMapping& mapping) override {
        // By its address: Google Benchmark deprecates the use of constants.
        const shadow::HostMapping* seen = &mapping;
        benchmark::DoNotOptimize(seen);
        ++calls;
        return shadow::HostResult::success();
    }
    shadow::HostResult unmap(Iova iova, std::uint64_t) override {
        benchmark::DoNotOptimize(iova);
        ++calls;
        return shadow::HostResult::success();
    }
    std::uint64_t calls = 0;
};

class Guest final : public shadow::ContextSource, public shadow::Device {
  public:
    Guest(std::size_t pages, Layout layout)
        : memory_((pages + kEntriesPerTable - 1) / kEntriesPerTable * 2 + 64),
          layout_(layout),
          manager_({.coalesce = true}, kFormat, {memory_, ram_, *this, events_, clock_}) {
        for (std::size_t page = 1; page < pages / kEntriesPerTable * 2 + 64; ++page) {
            free_.emplace_back(page * kPageSize);
        }
        std::mt19937 random(1);
        if (layout == kFragmented) {
            std::shuffle(free_.begin(), free_.end(), random);
        } else {
            std::reverse(free_.begin(), free_.end());
        }
        root_ = take();
        for (std::size_t page = 0; page < pages; ++page) {
            map(page);
        }
        manager_.translation_changed(true);
        manager_.add_device(*this);
    }
    ~Guest() override { manager_.remove_device(*this); }
    Guest(const Guest&) = delete;
    Guest& operator=(const Guest&) = delete;

    // The device's address of page number `page`.
    [[nodiscard]] static Iova iova(std::size_t page) {
        return Iova(0x1'0000'0000 + page * kPageSize);
    }
    void map(std::size_t page) {
        // Fragmented: no two neighbours are contiguous in guest memory.
        const std::size_t place = layout_ == kFragmented ? page * 3 : page;
        *entry(iova(page)) = (kRam + place * kPageSize).value() | driver::kEntryReadWrite;
    }
    void unmap(std::size_t page) { *entry(iova(page)) = 0; }

    [[nodiscard]] std::uint64_t* entry(Iova iova) {
        Gpa table = root_;
        for (unsigned level = 4; level > 1; --level) {
            std::uint64_t* slot = memory_.entry(table, driver::table_index(iova, level));
            if (*slot == 0) {
                *slot = take().value() | driver::kEntryReadWrite;
                ++tables_;
            }
            table = Gpa(*slot & driver::kEntryAddress);
        }
        return memory_.entry(table, driver::table_index(iova, 1));
    }

    [[nodiscard]] shadow::DeviceContext context_of(SourceId) const override {
        return {shadow::DmaMode::translated, kDomain, root_, 4};
    }
    [[nodiscard]] SourceId source_id() const override { return SourceId(8); }
    [[nodiscard]] shadow::HostMapper* mapper() override { return &mapper_; }
    void set_mode(shadow::DmaMode) override {}

    [[nodiscard]] shadow::Manager& manager() { return manager_; }
    [[nodiscard]] const NullMapper& host() const { return mapper_; }
    [[nodiscard]] std::uint64_t table_bytes() const { return (tables_ + 1) * kPageSize; }

    // Tables of the lowest level, in order of IOVA.
    [[nodiscard]] std::vector<const std::uint64_t*> leaf_tables(std::size_t pages) {
        std::vector<const std::uint64_t*> tables;
        for (std::size_t page = 0; page < pages; page += kEntriesPerTable) {
            tables.push_back(entry(iova(page)));
        }
        return tables;
    }

  private:
    Gpa take() {
        const Gpa page = free_.back();
        free_.pop_back();
        return page;
    }

    Memory memory_;
    const Layout layout_;
    Ram ram_;
    Silence events_;
    shadow::SteadyClock clock_;
    NullMapper mapper_;
    shadow::Manager manager_;
    std::vector<Gpa> free_;
    Gpa root_;
    std::uint64_t tables_ = 0;
};

// The yardstick: the same guest tables against copies in memory of the same kind, by the C library.
void memcmp_of_leaf_tables(benchmark::State& state) {
    const auto pages = static_cast<std::size_t>(state.range(0));
    Guest guest(pages, static_cast<Layout>(state.range(1)));
    const std::vector<const std::uint64_t*> tables = guest.leaf_tables(pages);
    Memory copies(tables.size());
    for (std::size_t i = 0; i < tables.size(); ++i) {
        std::memcpy(copies.entry(Gpa(i * kPageSize), 0), tables[i], kPageSize);
    }
    for ([[maybe_unused]] auto _ : state) {
        int different = 0;
        for (std::size_t i = 0; i < tables.size(); ++i) {
            const int order =
                std::memcmp(copies.entry(Gpa(i * kPageSize), 0), tables[i], kPageSize);
            different += order != 0 ? 1 : 0;
        }
        benchmark::DoNotOptimize(different);
    }
}

void domain_sync_nothing_changed(benchmark::State& state) {
    const auto pages = static_cast<std::size_t>(state.range(0));
    Guest guest(pages, static_cast<Layout>(state.range(1)));
    for ([[maybe_unused]] auto _ : state) {
        guest.manager().invalidated(kWholeDomain);
    }
    const auto& sync = guest.manager().counters().sync;
    state.counters["mirror/tables"] =
        static_cast<double>(sync.mirror_bytes) / static_cast<double>(guest.table_bytes());
    state.counters["bytes/page"] =
        static_cast<double>(sync.mirror_bytes) / static_cast<double>(pages);
}

void scattered_unmaps_and_domain_sync(benchmark::State& state) {
    const auto pages = static_cast<std::size_t>(state.range(0));
    constexpr std::size_t kUnmaps = 256;
    Guest guest(pages, kFragmented);
    const std::uint64_t before = guest.host().calls;
    for ([[maybe_unused]] auto _ : state) {
        for (std::size_t i = 0; i < kUnmaps; ++i) {
            guest.unmap(i * (pages / kUnmaps));
        }
        guest.manager().invalidated(kWholeDomain);
        state.PauseTiming();
        for (std::size_t i = 0; i < kUnmaps; ++i) {
            guest.map(i * (pages / kUnmaps));
        }
        guest.manager().invalidated(kWholeDomain);
        state.ResumeTiming();
    }
    state.counters["calls"] =
        static_cast<double>(guest.host().calls - before) / static_cast<double>(state.iterations());
}

// `pages` pages are mapped by one invalidation and unmapped by another; the time is that of both.
void page_sync_map_and_unmap(benchmark::State& state) {
    const auto pages = static_cast<std::size_t>(state.range(0));
    unsigned mask = 0;
    while ((std::size_t{1} << mask) < pages) {
        ++mask;
    }
    constexpr std::size_t kMapped = 65'536;
    Guest guest(kMapped, static_cast<Layout>(state.range(1)));
    // Somewhere in the middle.
    const std::size_t first = kMapped / 2;
    const auto pages_changed =
        vtd::Invalidation::iotlb_page(kDomain, IovaRange::pages(Guest::iova(first), mask), true);
    for ([[maybe_unused]] auto _ : state) {
        for (std::size_t page = first; page < first + pages; ++page) {
            guest.unmap(page);
        }
        guest.manager().invalidated(pages_changed);
        for (std::size_t page = first; page < first + pages; ++page) {
            guest.map(page);
        }
        guest.manager().invalidated(pages_changed);
    }
}

// The guest's own stores in page_sync_map_and_unmap.
void page_stores_only(benchmark::State& state) {
    const auto pages = static_cast<std::size_t>(state.range(0));
    constexpr std::size_t kMapped = 65'536;
    Guest guest(kMapped, kContiguous);
    const std::size_t first = kMapped / 2;
    for ([[maybe_unused]] auto _ : state) {
        for (std::size_t page = first; page < first + pages; ++page) {
            guest.unmap(page);
        }
        benchmark::ClobberMemory();
        for (std::size_t page = first; page < first + pages; ++page) {
            guest.map(page);
        }
        benchmark::ClobberMemory();
    }
}

void compare_one_table(benchmark::State& state, const char* name) {
    const shadow::CompareFunctions* functions = shadow::compare_functions(name);
    if (functions == nullptr) {
        state.SkipWithError("this CPU has none of it");
        return;
    }
    Memory memory(2);
    for ([[maybe_unused]] auto _ : state) {
        benchmark::DoNotOptimize(
            functions->differing_lines(memory.entry(Gpa(0), 0), memory.entry(Gpa(kPageSize), 0)));
    }
    state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) *
                            static_cast<std::int64_t>(kPageSize));
}

void whole_table(benchmark::internal::Benchmark* benchmark) {
    for (const Layout layout : {kContiguous, kFragmented}) {
        for (const std::int64_t pages : {256, 4096, 65'536, 524'288, 1'048'576}) {
            benchmark->Args({pages, layout});
        }
    }
    benchmark->ArgNames({"pages", "fragmented"});
}

BENCHMARK(memcmp_of_leaf_tables)->Apply(whole_table);
BENCHMARK(domain_sync_nothing_changed)->Apply(whole_table);
BENCHMARK(scattered_unmaps_and_domain_sync)->Arg(4096)->Arg(65'536);
BENCHMARK(page_sync_map_and_unmap)
    ->ArgNames({"pages", "fragmented"})
    ->ArgsProduct({{1, 8, 512}, {kContiguous, kFragmented}});
BENCHMARK(page_stores_only)->Arg(1)->Arg(8)->Arg(512);
BENCHMARK_CAPTURE(compare_one_table, plain, "plain");
BENCHMARK_CAPTURE(compare_one_table, sse2, "sse2");
BENCHMARK_CAPTURE(compare_one_table, avx2, "avx2");
BENCHMARK_CAPTURE(compare_one_table, avx512, "avx512");

}  // namespace
}  // namespace umbra
