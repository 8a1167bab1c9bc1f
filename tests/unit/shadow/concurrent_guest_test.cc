// SPDX-License-Identifier: GPL-2.0-or-later
//
// A guest that writes to its tables in the middle of a sync, while the host refuses one page. Each
// test tries every moment of the sync, which are the looks at the clock.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <functional>

#include "tests/support/guest_tables.h"

namespace umbra::testing {
namespace {

constexpr DomainId kDomain{3};
constexpr Gpa kRam = FakeMachine::kRam;
constexpr Gpa kOtherRam = kRam + vtd::level_span(3);
constexpr HostAddress kOtherHost = FakeMachine::kHost + vtd::level_span(3);
constexpr unsigned kMoments = 40;
const SourceId kDevice(0, 0x08);

class ConcurrentGuest {
  public:
    explicit ConcurrentGuest(const shadow::Options& options) : machine_(options) {
        machine_.contexts.translate(kDevice, kDomain, tables_.root());
        machine_.manager.add_device(device_);
    }

    ~ConcurrentGuest() { leave(); }
    ConcurrentGuest(const ConcurrentGuest&) = delete;
    ConcurrentGuest& operator=(const ConcurrentGuest&) = delete;

    [[nodiscard]] FakeMachine& machine() { return machine_; }
    [[nodiscard]] GuestTables& tables() { return tables_; }
    [[nodiscard]] const host::Recorder& host() const { return device_.recorder; }
    [[nodiscard]] const telemetry::HostCounters& counters() const {
        return machine_.manager.counters().host;
    }

    void invalidate(unsigned page, unsigned mask = 0) {
        machine_.manager.iotlb_pages(kDomain, Iova(page * kPageSize), mask, false);
    }
    // One batch that names two pages of the first table, which do not touch. `write` happens at the
    // look at the clock number `moment`.
    void invalidate_while(unsigned moment, const std::function<void()>& write) {
        unsigned looks = 0;
        machine_.clock.at_look = [&] {
            if (looks++ == moment) {
                write();
            }
        };
        machine_.manager.batch_begin();
        invalidate(0);
        invalidate(5);
        machine_.manager.barrier();
        machine_.manager.batch_end();
        for (unsigned slices = 0; !machine_.manager.caught_up() && slices < 10'000; ++slices) {
            (void)machine_.manager.run();
        }
        machine_.clock.at_look = nullptr;
    }
    // The host refuses to map this page, `times` times.
    void refuse(unsigned page, unsigned times) {
        device_.recorder.fail = [page, times](bool is_map, Iova iova, std::uint64_t) mutable {
            return is_map && iova == Iova(page * kPageSize) && times != 0 && times-- != 0 ? ENOMEM
                                                                                          : 0;
        };
    }
    void leave() { machine_.manager.remove_device(device_); }

  private:
    FakeMachine machine_;
    GuestTables tables_{machine_};
    FakeDevice device_{kDevice};
};

class EachMoment : public ::testing::TestWithParam<unsigned> {};
INSTANTIATE_TEST_SUITE_P(Shadow, EachMoment, ::testing::Range(0U, kMoments));

TEST_P(EachMoment, PageThatTheHostRefusesIsClearedBeforeItIsNamed) {
    ConcurrentGuest guest({.coalesce = false, .tables_per_look = 1});
    GuestTables& tables = guest.tables();
    tables.map_pages(Iova(256 * kPageSize), kRam, 256);
    guest.invalidate(256, 8);
    tables.map_pages(Iova(0), kOtherRam, 256);
    tables.entry(Iova(0), 2) &= ~std::uint64_t{2};
    guest.refuse(5, 1'000);
    guest.invalidate_while(GetParam(), [&] { tables.unmap(Iova(5 * kPageSize)); });
    tables.unmap(Iova(5 * kPageSize));
    guest.invalidate(5);
    EXPECT_EQ(guest.counters().missing_leaves, 0U);
    EXPECT_EQ(guest.counters().live_mappings, guest.host().mappings().size());
    EXPECT_EQ(guest.host().mappings().size(), 511U);

    // What stays behind when all that is known to be mapped has gone.
    tables.unmap_pages(Iova(0), 511);
    guest.machine().manager.iotlb_domain(kDomain);
    EXPECT_EQ(guest.host().mappings().size(), 1U);
    guest.leave();
    EXPECT_EQ(guest.host().mappings().size(), 0U);
    EXPECT_EQ(guest.host().violations(), 0U);
}

// A large leaf gives way to a table of pages elsewhere, and the table to a large leaf of the same
// translation before the sync has come to its end.
void table_of_a_moment(ConcurrentGuest& guest, unsigned moment) {
    GuestTables& tables = guest.tables();
    tables.map(Iova(0), kRam, Access::read_write, 2);
    guest.invalidate(0, 9);
    tables.entry(Iova(0), 2) = 0;
    tables.map_pages(Iova(0), kOtherRam, 512);
    guest.refuse(100, 1);
    guest.invalidate_while(moment, [&] { tables.map(Iova(0), kOtherRam, Access::read_write, 2); });
    guest.machine().clock.step = 0;

    // An invalidation of what changed mends all that was refused or put off.
    tables.map(Iova(0), kOtherRam, Access::read_write, 2);
    guest.machine().manager.iotlb_domain(kDomain);
    EXPECT_EQ(guest.counters().missing_leaves, 0U);
    for (unsigned page = 0; page < 512; ++page) {
        const std::uint64_t offset = page * kPageSize;
        ASSERT_EQ(mapped(guest.host(), Iova(offset)),
                  (FakeRamMap::Target{kOtherHost + offset, Access::read_write}))
            << page;
    }
    EXPECT_TRUE(guest.machine().manager.verify().clean());
    tables.unmap(Iova(0), 2);
    guest.machine().manager.iotlb_domain(kDomain);
    EXPECT_EQ(guest.counters().live_mappings, 0U);
    EXPECT_EQ(guest.counters().pinned_bytes, 0U);
    EXPECT_EQ(guest.host().mappings().size(), 0U);
    EXPECT_EQ(guest.host().violations(), 0U);
}

TEST_P(EachMoment, TableBecomesALeafWhilePagesAreStillToBeMapped) {
    ConcurrentGuest guest({.coalesce = false, .tables_per_look = 1});
    table_of_a_moment(guest, GetParam());
}

TEST_P(EachMoment, TableBecomesALeafAndItsPagesArePutOff) {
    for (const std::uint64_t looks_a_slice : {3, 5, 7, 9, 11, 13, 20}) {
        ConcurrentGuest guest({.coalesce = false, .slice_ns = 1'000'000, .tables_per_look = 1});
        guest.machine().clock.step = 1'000'000 / looks_a_slice;
        table_of_a_moment(guest, GetParam());
    }
}

}  // namespace
}  // namespace umbra::testing
