// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/bench/device/subject.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <bit>
#include <chrono>
#include <numeric>
#include <random>
#include <sstream>
#include <stdexcept>

#include "plugin/probe/registers.h"
#include "tests/support/driver/layout.h"

namespace umbra::bench {

namespace {

using driver::Descriptor;
using driver::Leaf;

// 2 GiB of RAM below 4 GiB, and 1 GiB above. Little of it is ever touched.
constexpr unsigned kMemoryMib = 3072;
// Targets of mappings: the second GiB. More pages than it has are mapped to it again.
constexpr Gpa kData{1u << 30};
constexpr std::size_t kDataPages = (std::size_t{1} << 30) / kPageSize;

// Pages that stay, and far away from them the pages that operations add and take away. Neither lies
// in the interrupt address range at 0xfee00000.
constexpr Iova kStanding{0x1'0000'0000};
constexpr Iova kMoving{0x100'0000'0000};

constexpr std::size_t kScattered = 256;
constexpr std::size_t kBatch = 128;
constexpr std::chrono::seconds kCompletionLimit{60};
constexpr std::uint64_t kRehearsed = 4096;
constexpr unsigned kQueueOrder = 1;  // 512 descriptors

constexpr unsigned kFirstSlot = 5;

constexpr SourceId function(unsigned device) {
    return {0, static_cast<std::uint8_t>((kFirstSlot + device) << 3)};
}

qtest::MachineOptions machine_options(qtest::Viommu viommu, unsigned devices) {
    qtest::MachineOptions options;
    options.viommu = viommu;
    options.memory_mib = kMemoryMib;
    for (unsigned i = 0; i < devices; i++) {
        std::ostringstream device;
        device << "umbra-probe,listen=on,vfio-rules=off,addr=0x" << std::hex << kFirstSlot + i;
        options.arguments.insert(options.arguments.end(), {"-device", device.str()});
    }
    return options;
}

}  // namespace

Subject::Subject(qtest::Viommu viommu, const Configuration& configuration)
    : configuration_(configuration),
      machine_(machine_options(viommu, configuration.devices)),
      driver_(machine_, kQueueOrder),
      order_(kDataPages) {
    std::iota(order_.begin(), order_.end(), 0);
    if (configuration_.layout == Layout::fragmented) {
        std::mt19937 random(1);
        std::shuffle(order_.begin(), order_.end(), random);
    }
    const unsigned domains =
        configuration_.sharing == Sharing::own_domains ? configuration_.devices : 1;
    for (unsigned i = 0; i < domains; i++) {
        domains_.push_back({static_cast<std::uint16_t>(i + 1), driver_.new_table()});
    }
    for (unsigned i = 0; i < configuration_.devices; i++) {
        listeners_.add({machine_, function(i), qtest::probe_bar(i)});
        const Domain& domain = domains_.at(i % domains);
        driver_.attach(function(i), domain.table, domain.id);
    }
    driver_.enable_translation();
    listeners_.clear_traffic();
    anonymous_before_ = machine_.anonymous_bytes();
    write_pages();
    driver_.enqueue(Descriptor::iotlb_global());
    ring();
    check("mapping the pages", listeners_.traffic(),
          {.mapped = configuration_.pages * kPageSize, .devices = configuration_.devices});
}

Gpa Subject::target(std::size_t page) const {
    return kData + std::uint64_t{order_[page % kDataPages]} * kPageSize;
}

void Subject::write_pages() {
    for (Domain& domain : domains_) {
        for (std::size_t i = 0; i < configuration_.pages; i++) {
            // A table at a time: its entries lie side by side.
            const Gpa slot = domain.table.entry(kStanding + i * kPageSize, 1);
            const std::size_t end = std::min<std::size_t>(
                configuration_.pages, i + (kPageSize - slot.offset_in(kPageSize)) / 8);
            for (std::size_t at = i; at < end; at++) {
                machine_.store64(slot + (at - i) * 8, target(at).value() | driver::kEntryReadWrite);
            }
            i = end - 1;
        }
    }
}

void Subject::clear_pages() {
    for (Domain& domain : domains_) {
        for (std::size_t i = 0; i < configuration_.pages; i += kEntriesPerTable) {
            const Gpa slot = domain.table.entry(kStanding + i * kPageSize, 1);
            const std::size_t count =
                std::min<std::size_t>(kEntriesPerTable, configuration_.pages - i);
            machine_.fill(slot, count * 8, std::byte{0});
        }
    }
}

double Subject::ring() {
    const std::uint32_t expected = ++sequence_;
    driver_.enqueue(Descriptor::wait_status(driver_.status_address(), expected));
    const qtest::DoorbellTimes times = listeners_.front().ring_doorbell(
        qtest::kUnitBase + driver::kQueueTail, 8, driver_.tail() * Descriptor::kBytes, 1);
    const auto complete = [&] {
        return static_cast<std::uint32_t>(machine_.load64(driver_.status_address())) == expected;
    };
    if (complete()) {
        return static_cast<double>(times.total_ns);
    }
    // The vIOMMU goes on by itself in slices, and the status will appear in memory. A request to
    // QEMU in between would take time from that work.
    const auto deadline = std::chrono::steady_clock::now() + kCompletionLimit;
    while (!complete()) {
        if (std::chrono::steady_clock::now() >= deadline) {
            throw std::runtime_error("the invalidation queue stopped");
        }
    }
    const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::chrono::steady_clock::now().time_since_epoch());
    return static_cast<double>(now.count()) - static_cast<double>(times.start_ns);
}

unsigned Subject::devices_of_first_domain() const {
    return configuration_.sharing == Sharing::one_domain ? configuration_.devices : 1;
}

Measurement Subject::unchanged(const Descriptor& descriptor, unsigned repetitions) {
    Measurement result;
    listeners_.clear_traffic();
    for (unsigned i = 0; i < repetitions; i++) {
        driver_.enqueue(descriptor);
        result.times.push_back(ring());
    }
    const Traffic seen = listeners_.traffic();
    check("an invalidation without a change", seen, {.devices = configuration_.devices});
    result.calls = static_cast<double>(seen.calls) / repetitions;
    return result;
}

Measurement Subject::domain_unchanged(unsigned repetitions) {
    return unchanged(Descriptor::iotlb_domain(domains_.front().id), repetitions);
}

Measurement Subject::global_unchanged(unsigned repetitions) {
    return unchanged(Descriptor::iotlb_global(), repetitions);
}

Measurement Subject::unmap_scattered(unsigned repetitions) {
    const std::size_t count = std::min(kScattered, configuration_.pages / 2);
    Domain& domain = domains_.front();
    Measurement result;
    std::uint64_t calls = 0;
    for (unsigned i = 0; i < repetitions; i++) {
        // One page out of each of `count` equal parts, so that none is picked twice.
        std::vector<std::size_t> picked;
        const std::size_t part = configuration_.pages / count;
        for (std::size_t k = 0; k < count; k++) {
            picked.push_back(k * part + random_() % part);
        }
        listeners_.clear_traffic();
        for (const std::size_t page : picked) {
            domain.table.unmap(kStanding + page * kPageSize);
        }
        driver_.enqueue(Descriptor::iotlb_domain(domain.id));
        result.times.push_back(ring());
        const Traffic seen = listeners_.traffic();
        check("scattered unmaps", seen,
              {.unmapped = count * kPageSize, .devices = devices_of_first_domain()});
        calls += seen.calls;

        for (const std::size_t page : picked) {
            domain.table.map(kStanding + page * kPageSize, target(page));
        }
        driver_.enqueue(Descriptor::iotlb_domain(domain.id));
        ring();
    }
    result.calls = static_cast<double>(calls) / repetitions;
    return result;
}

Measurement Subject::map_all(unsigned repetitions) {
    Measurement result;
    std::uint64_t calls = 0;
    for (unsigned i = 0; i < repetitions; i++) {
        clear_pages();
        driver_.enqueue(Descriptor::iotlb_global());
        ring();
        listeners_.clear_traffic();
        write_pages();
        driver_.enqueue(Descriptor::iotlb_domain(domains_.front().id));
        result.times.push_back(ring());
        const Traffic seen = listeners_.traffic();
        check("mapping everything", seen,
              {.mapped = configuration_.pages * kPageSize, .devices = devices_of_first_domain()});
        calls += seen.calls;
        driver_.enqueue(Descriptor::iotlb_global());
        ring();
    }
    result.calls = static_cast<double>(calls) / repetitions;
    return result;
}

Measurement Subject::unmap_all(unsigned repetitions) {
    Measurement result;
    std::uint64_t calls = 0;
    for (unsigned i = 0; i < repetitions; i++) {
        clear_pages();
        listeners_.clear_traffic();
        driver_.enqueue(Descriptor::iotlb_domain(domains_.front().id));
        result.times.push_back(ring());
        const Traffic seen = listeners_.traffic();
        check("unmapping everything", seen,
              {.unmapped = configuration_.pages * kPageSize, .devices = devices_of_first_domain()});
        calls += seen.calls;
        write_pages();
        driver_.enqueue(Descriptor::iotlb_global());
        ring();
    }
    result.calls = static_cast<double>(calls) / repetitions;
    return result;
}

Measurement Subject::batches(Leaf leaf, std::size_t count, bool timing_maps, unsigned repetitions,
                             Batch batch) {
    const bool adjacent = batch == Batch::adjacent;
    const std::uint64_t step_bytes = count * leaf_size(leaf);
    const auto address_mask = static_cast<unsigned>(std::countr_zero(step_bytes / kPageSize));
    const std::size_t steps = batch == Batch::alone ? 1 : std::max<std::size_t>(1, kBatch / count);
    Domain& domain = domains_.front();
    Measurement result;
    result.doorbells = 1.0 / static_cast<double>(steps);
    std::uint64_t calls = 0;

    const auto apply = [&](bool map) {
        listeners_.clear_traffic();
        for (std::size_t step = 0; step < steps; step++) {
            // With a gap to the next step, unless they are to be adjacent.
            const Iova iova = kMoving + step * step_bytes * (adjacent ? 1 : 2);
            for (std::size_t i = 0; i < count; i++) {
                const Iova at = iova + i * leaf_size(leaf);
                if (!map) {
                    domain.table.unmap(at, leaf);
                } else if (leaf == Leaf::page_4k) {
                    domain.table.map(at, target(step * count + i));
                } else {
                    const std::uint64_t leaves = kDataPages * kPageSize / leaf_size(leaf);
                    domain.table.map(at, kData + step % leaves * leaf_size(leaf), leaf);
                }
            }
            driver_.enqueue(Descriptor::iotlb_pages(domain.id, iova, address_mask));
        }
        const double time = ring() / static_cast<double>(steps);
        const Traffic seen = listeners_.traffic();
        const std::uint64_t bytes = steps * step_bytes;
        check("a batch of page-selective invalidations", seen,
              {.mapped = map ? bytes : 0,
               .unmapped = map ? 0 : bytes,
               .devices = devices_of_first_domain(),
               .holes = adjacent ? 0 : bytes});
        if (map == timing_maps) {
            result.times.push_back(time);
            calls += seen.calls;
        }
    };
    for (unsigned i = 0; i < repetitions; i++) {
        apply(true);
        apply(false);
    }
    result.calls = static_cast<double>(calls) / static_cast<double>(repetitions * steps);
    return result;
}

Measurement Subject::map_pages(std::size_t count, unsigned repetitions) {
    return batches(Leaf::page_4k, count, true, repetitions);
}

Measurement Subject::map_adjacent(unsigned repetitions) {
    return batches(Leaf::page_4k, 1, true, repetitions, Batch::adjacent);
}

Measurement Subject::map_alone(unsigned repetitions) {
    return batches(Leaf::page_4k, 1, true, repetitions, Batch::alone);
}

Measurement Subject::unmap_alone(unsigned repetitions) {
    return batches(Leaf::page_4k, 1, false, repetitions, Batch::alone);
}

Measurement Subject::unmap_pages(std::size_t count, unsigned repetitions) {
    return batches(Leaf::page_4k, count, false, repetitions);
}

Measurement Subject::map_large(Leaf leaf, unsigned repetitions) {
    return batches(leaf, 1, true, repetitions);
}

Measurement Subject::unmap_large(Leaf leaf, unsigned repetitions) {
    return batches(leaf, 1, false, repetitions);
}

Floor Subject::floor() {
    Floor result;
    result.doorbell = ring();
    qtest::ProbeDriver& probe = listeners_.front();
    probe.set(UMBRA_PROBE_REHEARSE, kRehearsed);
    result.notification = static_cast<double>(probe.get(UMBRA_PROBE_REHEARSE_NS)) / kRehearsed;
    return result;
}

Memory Subject::memory() {
    Memory result;
    for (const Domain& domain : domains_) {
        result.table_bytes += domain.table.table_pages() * kPageSize;
    }
    const std::uint64_t now = machine_.anonymous_bytes();
    result.anonymous_bytes = now - std::min(now, anonymous_before_);
    if (machine_.options().viommu == qtest::Viommu::umbra) {
        const qtest::Json statistics = machine_.property(qtest::kViommuPath, "statistics");
        result.mirror_bytes = static_cast<std::uint64_t>(
            statistics.at("shadow").at("mirror-bytes").get<std::int64_t>());
    }
    return result;
}

double Subject::compare_tables() {
    if (!table_copies_) {
        std::vector<Gpa> tables;
        for (std::size_t i = 0; i < configuration_.pages; i += kEntriesPerTable) {
            tables.push_back(domains_.front().table.entry(kStanding + i * kPageSize, 1));
        }
        table_copies_.emplace(machine_, std::move(tables));
    }
    return table_copies_->compare();
}

std::string Subject::qemu_version() {
    const std::string text = machine_.monitor("info version");
    return text.substr(0, text.find_first_of("\r\n"));
}

}  // namespace umbra::bench
