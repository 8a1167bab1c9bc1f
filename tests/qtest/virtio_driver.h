// SPDX-License-Identifier: GPL-2.0-or-later
//
// The guest's part of a virtio device over PCI with one queue (Virtual I/O Device specification
// 1.2, 2.7 and 4.1): finds the registers, negotiates features, places the three parts of a split
// queue wherever the test wants them, and sends chains that begin at descriptor 0.
#pragma once

#include <cstdint>

#include "plugin/vtd/types.h"
#include "tests/qtest/qtest_machine.h"
#include "tests/qtest/wait.h"

namespace umbra::qtest {

// Where the device finds the parts of its queue. Addresses are as the device sees them: guest-
// physical, or IOVAs with iommu_platform=on.
struct VirtioRings {
    std::uint64_t descriptors = 0;
    std::uint64_t available = 0;
    std::uint64_t used = 0;
};

// Functions throw TransportError if the device is not there or does not answer.
class VirtioDriver {
  public:
    static constexpr std::uint16_t kQueueSize = 4;
    static constexpr std::uint16_t kNext = 1;  // descriptor flags
    static constexpr std::uint16_t kWrite = 2;

    // `bar` is where the registers of `function` go.
    VirtioDriver(QtestMachine& machine, SourceId function, std::uint64_t bar);

    // `features` are bits 0 to 63 of what the driver accepts, VIRTIO_F_VERSION_1 among them.
    void start(std::uint64_t features, const VirtioRings& rings);

    // A descriptor's second eight bytes; the next one of the chain is `index` + 1.
    [[nodiscard]] static std::uint64_t descriptor_tail(unsigned index, std::uint32_t length,
                                                       std::uint16_t flags) {
        return length | std::uint64_t{flags} << 32 | std::uint64_t{index + 1} << 48;
    }

    // Offers the chain at descriptor 0 once more, and tells the device. `available` is where the
    // available ring lies in guest memory.
    void offer(Gpa available);
    // Waits until the device has returned everything that was offered; `used_index` reads the used
    // ring's index.
    template <class UsedIndex>
    void wait_returned(UsedIndex&& used_index) const {
        if (!comes_true([&] { return used_index() == offered_; })) {
            throw TransportError("the virtio device does not answer");
        }
    }

  private:
    void find_registers(std::uint64_t bar);
    void write8(std::uint32_t offset, unsigned value);
    void write16(std::uint32_t offset, std::uint16_t value);
    void write64(std::uint32_t offset, std::uint64_t value);

    QtestMachine& machine_;
    SourceId function_;
    std::uint64_t common_ = 0;
    std::uint64_t notify_ = 0;
    std::uint32_t notify_multiplier_ = 0;
    std::uint16_t offered_ = 0;
};

}  // namespace umbra::qtest
