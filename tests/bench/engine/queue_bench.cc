// SPDX-License-Identifier: GPL-2.0-or-later
//
// The invalidation queue without a shadow: what one write to the tail register costs, from the
// fetch of the first descriptor to the status of the wait descriptor behind the last.
#include <benchmark/benchmark.h>

#include <cstdint>

#include "tests/bench/engine/guest.h"
#include "tests/support/driver/descriptor.h"
#include "tests/support/driver/layout.h"

namespace umbra::bench {
namespace {

using driver::Descriptor;

// A queue of one page, which is switched on.
class Queue {
  public:
    explicit Queue(Guest& guest)
        : guest_(guest), base_(guest.new_page()), status_(guest.new_page()) {
        guest_.unit().mmio_write(driver::kQueueAddress, base_.value(), 8);
        guest_.unit().mmio_write(driver::kGlobalCommand,
                                 driver::kQueueEnable | driver::kTranslationEnable, 4);
    }

    void add(const Descriptor& descriptor) {
        guest_.ram().store(base_ + tail_, descriptor);
        tail_ = (tail_ + Descriptor::kBytes) % kPageSize;
    }
    // One page of 4 KiB of the guest's domain, with the hint that only leaves changed.
    void add_page(Iova iova) {
        add(Descriptor::iotlb_pages(static_cast<std::uint16_t>(Guest::kDomain), iova, 0, true));
    }
    void add_wait() { add(Descriptor::wait_status(status_, 1)); }
    void write_tail() { guest_.unit().mmio_write(driver::kQueueTail, tail_, 8); }

    // Clears the status and says whether the status had been written.
    [[nodiscard]] bool take_status() {
        const bool written = guest_.ram().load64(status_) == 1;
        guest_.ram().store64(status_, 0);
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
            queue.add_page(Iova(static_cast<std::uint64_t>(page) * kPageSize));
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
