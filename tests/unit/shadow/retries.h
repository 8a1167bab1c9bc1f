// SPDX-License-Identifier: GPL-2.0-or-later
//
// A machine whose host mappers refuse calls, or are slow: one device in one guest domain, and a
// second one that can come to it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>

#include "tests/support/guest_tables.h"

namespace umbra::testing {

inline constexpr DomainId kDomain{3};
inline constexpr Gpa kRam = FakeMachine::kRam;
inline constexpr HostAddress kHost = FakeMachine::kHost;
inline const SourceId kFirst(0, 0x08);
inline const SourceId kSecond(0, 0x10);
inline constexpr FakeRamMap::Target kNothing{};

inline constexpr Iova page(unsigned number) {
    return Iova(number * kPageSize);
}
inline FakeRamMap::Target at(std::uint64_t offset, Access access = Access::read_write) {
    return {kHost + offset, access};
}

// A domain with one device, and a second device that can come to it.
class Retries : public ::testing::Test {
  public:
    ~Retries() override {
        for (FakeDevice* device : {&first_, &second_}) {
            device->recorder.fail = nullptr;
            machine_.manager.remove_device(*device);
            EXPECT_EQ(device->recorder.mappings().size(), 0U);
        }
    }

  protected:
    explicit Retries(const shadow::Options& options = {}) : machine_(options), tables_(machine_) {
        machine_.contexts.translate(kFirst, kDomain, tables_.root());
        machine_.contexts.translate(kSecond, kDomain, tables_.root());
        machine_.manager.add_device(first_);
    }
    void invalidate(Iova iova, unsigned mask = 0) {
        machine_.manager.iotlb_pages(kDomain, iova, mask, false);
    }
    void invalidate_domain() { machine_.manager.iotlb_domain(kDomain); }
    // By one invalidation of pages, so that what is contiguous becomes one mapping.
    void invalidate_pages_of_all() { invalidate(Iova(0), 27); }
    [[nodiscard]] const telemetry::HostCounters& host() const {
        return machine_.manager.counters().host;
    }
    // Whether pages [from, end) of the device, from IOVA 0 on, reach guest RAM from its start on.
    static void expect_mapped(const FakeDevice& device, unsigned from, unsigned end,
                              Access access = Access::read_write) {
        for (unsigned number = from; number < end; ++number) {
            EXPECT_EQ(mapped(device.recorder, page(number)), at(number * kPageSize, access))
                << "page " << number;
        }
    }

    FakeMachine machine_;
    GuestTables tables_;
    FakeDevice first_{kFirst};
    FakeDevice second_{kSecond};
};

class RetriesOfLeaves : public Retries {
  protected:
    RetriesOfLeaves() : Retries({.coalesce = false}) {}
};

class RetriesWithStop : public Retries {
  protected:
    RetriesWithStop() : Retries({.on_map_error = shadow::OnMapError::stop}) {}
};

}  // namespace umbra::testing
