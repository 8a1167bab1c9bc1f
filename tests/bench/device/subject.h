// SPDX-License-Identifier: GPL-2.0-or-later
//
// A machine that is measured: a vIOMMU, probes that listen and only count, and a guest domain with
// many pages mapped. Each operation changes the guest's tables. Then a probe writes the queue's
// tail register from inside QEMU and times that write. So a figure holds the work of the vIOMMU and
// its listeners until the wait descriptor completes, and nothing of a VM exit or of the test
// protocol.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "tests/bench/device/listeners.h"
#include "tests/bench/device/table_copies.h"
#include "tests/qtest/model_driver.h"
#include "tests/qtest/qtest_machine.h"
#include "tests/support/driver/descriptor.h"
#include "tests/support/driver/second_stage.h"

namespace umbra::bench {

enum class Sharing { one_domain, own_domains };
// Neighbouring IOVAs map to neighbouring pages, or to pages in random order.
enum class Layout { contiguous, fragmented };

struct Configuration {
    std::size_t pages = 4096;  // mapped in each domain before an operation
    unsigned devices = 1;      // 1 to 16
    Sharing sharing = Sharing::one_domain;
    Layout layout = Layout::contiguous;
};

// The times of one operation in ns, one for each repetition, and the listeners' calls in one.
struct Measurement {
    std::vector<double> times;
    double calls = 0;      // map and unmap notifications per operation, all devices together
    double doorbells = 1;  // writes of the tail register per operation
};

// The part of every figure that is not the vIOMMU's work on an invalidation.
struct Floor {
    double doorbell = 0;      // ns of a doorbell for a queue that holds a wait and nothing else
    double notification = 0;  // ns of one notification, from QEMU's entry to the counting listener
};

// The memory that a subject takes for the pages that it has mapped.
struct Memory {
    std::uint64_t table_bytes = 0;      // the guest's own second-stage tables
    std::uint64_t anonymous_bytes = 0;  // QEMU's private memory, grown since nothing was mapped
    std::uint64_t mirror_bytes = 0;     // Umbra's own count of its mirror; 0 for others
};

class Subject {
  public:
    // Starts QEMU, maps the pages, and checks that every listener was told of all of them. Throws
    // std::runtime_error if anything does not work.
    Subject(qtest::Viommu viommu, const Configuration& configuration);

    // Each does its operation `repetitions` times and checks afterwards that the listeners were
    // told of exactly the pages that were changed.
    [[nodiscard]] Measurement domain_unchanged(unsigned repetitions);
    [[nodiscard]] Measurement global_unchanged(unsigned repetitions);
    // 256 pages spread over all that are mapped, then one DSI.
    [[nodiscard]] Measurement unmap_scattered(unsigned repetitions);
    // All pages, then one DSI.
    [[nodiscard]] Measurement map_all(unsigned repetitions);
    [[nodiscard]] Measurement unmap_all(unsigned repetitions);
    // `count` new pages beside those that are mapped, and a PSI for them; time of one such step
    // out of a batch of up to 128 in one doorbell, no two of them side by side. `count` is a power
    // of two up to 512.
    [[nodiscard]] Measurement map_pages(std::size_t count, unsigned repetitions);
    [[nodiscard]] Measurement unmap_pages(std::size_t count, unsigned repetitions);
    // One page as map_pages(1) does, but each beside the one before.
    [[nodiscard]] Measurement map_adjacent(unsigned repetitions);
    // One page with a doorbell of its own, as a guest without a flush queue sends it; the time is
    // that of the doorbell.
    [[nodiscard]] Measurement map_alone(unsigned repetitions);
    [[nodiscard]] Measurement unmap_alone(unsigned repetitions);
    // One leaf of 2 MiB or 1 GiB and a PSI for it, likewise.
    [[nodiscard]] Measurement map_large(driver::Leaf leaf, unsigned repetitions);
    [[nodiscard]] Measurement unmap_large(driver::Leaf leaf, unsigned repetitions);

    [[nodiscard]] Floor floor();
    [[nodiscard]] Memory memory();

    // ns to compare the mapped leaf tables of the first domain with a copy, once, in this process.
    // The copy is made by the first call; every case leaves the tables as it found them.
    [[nodiscard]] double compare_tables();

    // As QEMU reports it.
    [[nodiscard]] std::string qemu_version();

  private:
    struct Domain {
        std::uint16_t id = 0;
        driver::SecondStage table;
    };

    [[nodiscard]] Gpa target(std::size_t page) const;
    void write_pages();
    void clear_pages();
    // Enqueues a wait behind what is in the queue, rings, and returns the ns until its status.
    double ring();
    [[nodiscard]] unsigned devices_of_first_domain() const;
    [[nodiscard]] Measurement unchanged(const driver::Descriptor& descriptor, unsigned repetitions);
    // The PSIs of one doorbell: several with gaps between, several side by side, or one.
    enum class Batch { spread, adjacent, alone };
    // Batches of one kind of change, timed when `timing_maps` says so.
    [[nodiscard]] Measurement batches(driver::Leaf leaf, std::size_t count, bool timing_maps,
                                      unsigned repetitions, Batch batch = Batch::spread);

    Configuration configuration_;
    std::mt19937 random_{2};                   // which pages scattered unmaps take
    std::optional<TableCopies> table_copies_;  // of the first domain, once they are compared
    qtest::QtestMachine machine_;
    qtest::ModelDriver driver_;
    Listeners listeners_;
    std::vector<Domain> domains_;
    std::vector<std::uint32_t> order_;      // of target pages, for Layout::fragmented
    std::uint32_t sequence_ = 0x8000'0000;  // of waits; away from the driver's own
    std::uint64_t anonymous_before_ = 0;
};

}  // namespace umbra::bench
