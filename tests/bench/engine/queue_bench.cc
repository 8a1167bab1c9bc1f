// SPDX-License-Identifier: GPL-2.0-or-later
//
// The invalidation queue without a shadow: what one write to the tail register costs, from the
// fetch of the first descriptor to the status of the wait descriptor behind the last.
#include <benchmark/benchmark.h>

#include <cstdint>

#include "plugin/vtd/spec/registers.h"
#include "tests/bench/engine/guest.h"

namespace umbra::bench {
namespace {

namespace offset = vtd::spec::offset;

constexpr std::uint64_t kQueueBytes = kPageSize;
constexpr std::uint64_t kDescriptorBytes = 16;

// A queue of one page, which is switched on.
class Queue {
  public:
    explicit Queue(Guest& guest)
        : guest_(guest), base_(guest.new_page()), status_(guest.new_page()) {
        constexpr std::uint32_t kQueueOn = 1u << 26;
        constexpr std::uint32_t kTranslationOn = 1u << 31;
        guest_.unit().mmio_write(offset::kInvalidationQueueAddress, base_.value(), 8);
        guest_.unit().mmio_write(offset::kGlobalCommand, kQueueOn | kTranslationOn, 4);
    }

    void add(std::uint64_t low, std::uint64_t high) {
        guest_.ram().store(base_ + tail_, low);
        guest_.ram().store(base_ + tail_ + 8, high);
        tail_ = (tail_ + kDescriptorBytes) % kQueueBytes;
    }
    // One page of 4 KiB of the guest's domain, with the hint that only leaves changed.
    void add_page(std::uint64_t iova) {
        constexpr std::uint64_t kPageSelective = 0x32;
        constexpr std::uint64_t kLeafOnly = 1u << 6;
        add(kPageSelective | static_cast<std::uint64_t>(Guest::kDomain) << 16, iova | kLeafOnly);
    }
    void add_wait() {
        constexpr std::uint64_t kStatusWrite = 0x25;
        add(kStatusWrite | std::uint64_t{1} << 32, status_.value());
    }
    void write_tail() { guest_.unit().mmio_write(offset::kInvalidationQueueTail, tail_, 8); }

    // Clears the status and says whether it had been written.
    [[nodiscard]] bool take_status() {
        const bool written = guest_.ram().load(status_) == 1;
        guest_.ram().store(status_, 0);
        return written;
    }

  private:
    Guest& guest_;
    Gpa base_;
    Gpa status_;
    std::uint64_t tail_ = 0;
};

// Argument: page-selective invalidations before the wait descriptor.
void BM_QueueOfPages(benchmark::State& state) {
    Guest guest;
    Queue queue(guest);
    for ([[maybe_unused]] auto _ : state) {
        for (std::int64_t page = 0; page < state.range(0); ++page) {
            queue.add_page(static_cast<std::uint64_t>(page) * kPageSize);
        }
        queue.add_wait();
        queue.write_tail();
        if (!queue.take_status()) {
            state.SkipWithError("the wait descriptor was not completed");
        }
    }
}
BENCHMARK(BM_QueueOfPages)->ArgName("pages")->Arg(1)->Arg(128);

}  // namespace
}  // namespace umbra::bench
