// SPDX-License-Identifier: GPL-2.0-or-later
//
// A machine with one device in one guest domain.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>

#include "tests/support/guest_tables.h"

namespace umbra::testing {

inline constexpr std::uint64_t kLarge = vtd::level_span(2);
inline constexpr DomainId kDomain{3};
inline constexpr DomainId kOther{4};
inline constexpr Gpa kRam = FakeMachine::kRam;
inline constexpr HostAddress kHost = FakeMachine::kHost;
inline const SourceId kDevice(0, 0x08);
inline const SourceId kSibling(0, 0x09);  // another function of the same device

inline std::uint64_t syncs(const FakeMachine& machine, telemetry::SyncTrigger trigger) {
    return machine.manager.counters().sync.syncs[trigger];
}
inline std::uint64_t calls(const FakeDevice& device) {
    return device.recorder.map_calls() + device.recorder.unmap_calls();
}
inline HostAddress host_at(const FakeDevice& device, Iova iova) {
    return mapped(device.recorder, iova).host;
}

class OneDevice : public ::testing::Test {
  public:
    ~OneDevice() override { machine_.manager.remove_device(device_); }

  protected:
    explicit OneDevice(const shadow::Options& options = {}) : machine_(options), tables_(machine_) {
        machine_.contexts.translate(kDevice, kDomain, tables_.root());
        machine_.manager.add_device(device_);
    }
    void invalidate(Iova iova, unsigned mask = 0) {
        machine_.manager.iotlb_pages(kDomain, iova, mask, false);
    }

    FakeMachine machine_;
    GuestTables tables_;
    FakeDevice device_{kDevice};
};

class WithoutCoalescing : public OneDevice {
  protected:
    WithoutCoalescing() : OneDevice({.coalesce = false}) {}
};

}  // namespace umbra::testing
