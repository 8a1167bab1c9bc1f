// SPDX-License-Identifier: GPL-2.0-or-later
//
// A driver for umbra-probe (plugin/probe/registers.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "plugin/vtd/types.h"
#include "tests/qtest/qtest_machine.h"

namespace umbra::qtest {

enum class DmaResult { ok, fault, mismatch, refused };
[[nodiscard]] const char* to_string(DmaResult result);
// For GoogleTest.
void PrintTo(DmaResult result, std::ostream* stream);

// One mapping as a VFIO container holds it.
struct LiveMapping {
    Iova iova;
    std::uint64_t size = 0;
    Gpa target;
    unsigned permissions = 0;  // bit 0 read, bit 1 write

    friend bool operator==(const LiveMapping&, const LiveMapping&) = default;
};
void PrintTo(const LiveMapping& mapping, std::ostream* stream);
using Mappings = std::vector<LiveMapping>;

[[nodiscard]] inline LiveMapping mapping(Iova iova, Gpa target, std::uint64_t size,
                                         unsigned permissions = 3) {
    return {.iova = iova, .size = size, .target = target, .permissions = permissions};
}
// Joins neighbours that continue each other, so that the sizes of the calls that made two sets do
// not matter when the sets are compared. The argument and the result are in order of IOVA.
[[nodiscard]] Mappings joined(const Mappings& mappings);

struct DoorbellTimes {
    std::uint64_t writes = 0;
    std::uint64_t total_ns = 0;
    std::uint64_t min_ns = 0;
    std::uint64_t max_ns = 0;
    std::uint64_t start_ns = 0;          // CLOCK_MONOTONIC at the first write
    std::vector<std::uint64_t> samples;  // of the first 512 writes
};

class ProbeDriver {
  public:
    // Finds the function, places its BAR at `bar` and enables memory access and bus mastering.
    // Throws TransportError if there is no probe.
    ProbeDriver(QtestMachine& machine, SourceId function, std::uint64_t bar);

    [[nodiscard]] SourceId source() const { return function_; }

    // Transfers by the function. Lengths in bytes.
    [[nodiscard]] DmaResult read(Iova iova, std::uint64_t length);   // into the window
    [[nodiscard]] DmaResult write(Iova iova, std::uint64_t length);  // from the window
    [[nodiscard]] DmaResult fill(Iova iova, std::uint64_t length, std::uint64_t pattern);
    [[nodiscard]] DmaResult check(Iova iova, std::uint64_t length, std::uint64_t pattern);
    // 8 bytes at `iova`; nullopt if the transfer failed.
    [[nodiscard]] std::optional<std::uint64_t> load(Iova iova);
    [[nodiscard]] DmaResult store(Iova iova, std::uint64_t value);
    // 4 bytes, as an interrupt message is.
    [[nodiscard]] DmaResult send_message(std::uint64_t address, std::uint32_t data);

    // MSI through the function's capability.
    void configure_msi(std::uint64_t address, std::uint16_t data);
    void trigger_msi(unsigned vector = 0);

    // Listening for mappings, as VFIO does. `rules`: refuse the calls that type1v2 refuses.
    void listen(bool on, bool rules = true);
    void clear_counters();
    [[nodiscard]] Mappings live_mappings();

    // Any register, by offset in the BAR.
    [[nodiscard]] std::uint64_t get(std::uint32_t offset) { return machine_.read64(bar_ + offset); }
    void set(std::uint32_t offset, std::uint64_t value) { machine_.write64(bar_ + offset, value); }
    [[nodiscard]] std::uint64_t bar() const { return bar_; }

    // Writes a physical address `count` times from inside QEMU and times each write. The value
    // advances by `step` modulo `wrap` each time.
    [[nodiscard]] DoorbellTimes ring_doorbell(std::uint64_t address, unsigned width,
                                              std::uint64_t value, std::uint64_t count,
                                              std::uint64_t step = 0, std::uint64_t wrap = 0);

  private:
    [[nodiscard]] DmaResult run(std::uint64_t command, Iova iova, std::uint64_t length);

    QtestMachine& machine_;
    SourceId function_;
    std::uint64_t bar_;
    unsigned msi_capability_ = 0;
};

// BAR addresses for probes: above each test's RAM, below the fixed devices at the end of 4 GiB.
[[nodiscard]] constexpr std::uint64_t probe_bar(unsigned index) {
    return 0xe000'0000u + std::uint64_t{index} * 0x1'0000;
}

}  // namespace umbra::qtest
