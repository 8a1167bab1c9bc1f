// SPDX-License-Identifier: GPL-2.0-or-later
//
// Where guest-physical memory lies in the host process. The shadow takes a snapshot of the whole
// list and keeps it until the generation changes; everything that is mapped on the host at one
// moment was resolved with one snapshot.
#pragma once

#include <cstdint>
#include <vector>

#include "plugin/vtd/types.h"

namespace umbra::shadow {

// A stretch of guest RAM that is contiguous in GPA and in host memory. Multiples of 4 KiB.
struct RamRun {
    Gpa first;
    std::uint64_t bytes = 0;
    HostAddress host;
    bool read_only = false;  // devices may read it only (ROM)

    // Whether [guest, guest + length) lies in it as a whole.
    [[nodiscard]] bool holds(Gpa guest, std::uint64_t length) const {
        return guest >= first && length <= bytes && guest - first <= bytes - length;
    }

    friend bool operator==(const RamRun&, const RamRun&) = default;
};

// Implemented over QEMU's memory API in plugin/qemu and over plain lists in tests.
// Threading: as HostMapper.
class RamMap {
  public:
    virtual ~RamMap() = default;

    // Changes whenever list() would give another answer. Should not change when only I/O regions
    // moved: each change costs a check of everything that is mapped.
    [[nodiscard]] virtual std::uint64_t generation() const = 0;

    // Replaces `runs` by all guest RAM that a device may reach: in order of GPA, not overlapping.
    virtual void list(std::vector<RamRun>& runs) const = 0;

  protected:
    RamMap() = default;
    RamMap(const RamMap&) = default;
    RamMap& operator=(const RamMap&) = default;
};

}  // namespace umbra::shadow
