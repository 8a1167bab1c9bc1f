// SPDX-License-Identifier: GPL-2.0-or-later
//
// The comparison of guest tables with what the host has.
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/unit/shadow/one_device.h"

namespace umbra::testing {
namespace {

using shadow::DmaMode;

TEST_F(OneDevice, VerifyTellsPendingFromErrors) {
    tables_.map_pages(Iova(0), kRam, 8);
    machine_.manager.iotlb_domain(kDomain);
    EXPECT_TRUE(machine_.manager.verify().clean());
    EXPECT_EQ(machine_.manager.verify().pages_checked, 8U);

    tables_.unmap_pages(Iova(kPageSize), 2);
    shadow::Verification found = machine_.manager.verify();
    EXPECT_EQ(found.errors, 0U);
    ASSERT_EQ(found.pending, 1U);
    EXPECT_EQ(found.differences[0].expected.iova, Iova(kPageSize));
    EXPECT_EQ(found.differences[0].expected.bytes, 2 * kPageSize);
    EXPECT_EQ(found.differences[0].expected.access, Access::none);
    EXPECT_EQ(found.differences[0].actual.host, kHost + kPageSize);
    EXPECT_EQ(found.differences[0].to_string(),
              "domain 3, device 00:01.0, iova 0x1000-0x2fff: expected nothing, actual gpa "
              "0x100001000 host 0x7f0000001000 rw (pending)");

    // Behind the shadow's back.
    EXPECT_TRUE(device_.recorder.unmap(Iova(0), 8 * kPageSize).ok());
    found = machine_.manager.verify();
    EXPECT_GE(found.errors, 1U);
    EXPECT_EQ(found.differences[0].kind, shadow::Difference::Kind::error);
    EXPECT_EQ(found.differences[0].expected.host, kHost);
    EXPECT_EQ(found.differences[0].actual.access, Access::none);
}

TEST_F(OneDevice, VerifyShowsAFailedMap) {
    device_.recorder.fail = [](bool, Iova, std::uint64_t) { return ENOMEM; };
    tables_.map(Iova(0), kRam);
    machine_.manager.iotlb_domain(kDomain);
    const shadow::Verification found = machine_.manager.verify();
    EXPECT_EQ(found.errors, 1U);
    EXPECT_EQ(found.pending, 0U);
}

TEST(Verification, WorksFromTheShadowsOwnAccountIfTheMapperCannotTell) {
    // Forwards to a recorder and cannot be asked.
    class Silent final : public shadow::HostMapper {
      public:
        shadow::HostResult map(const shadow::HostMapping& mapping) override {
            return recorder.map(mapping);
        }
        shadow::HostResult unmap(Iova iova, std::uint64_t bytes) override {
            return recorder.unmap(iova, bytes);
        }
        host::Recorder recorder;
    };
    class Device final : public shadow::Device {
      public:
        [[nodiscard]] SourceId source_id() const override { return kDevice; }
        [[nodiscard]] shadow::HostMapper* mapper() override { return &silent; }
        void set_mode(DmaMode /*mode*/) override {}
        Silent silent;
    };
    FakeMachine machine;
    GuestTables tables(machine);
    Device device;
    machine.contexts.translate(kDevice, kDomain, tables.root());
    tables.map_pages(Iova(0), kRam, 8);
    machine.manager.add_device(device);
    EXPECT_TRUE(machine.manager.verify().clean());
    EXPECT_EQ(machine.manager.verify().pages_checked, 8U);
    device.silent.recorder.fail = [](bool, Iova, std::uint64_t) { return EBUSY; };
    tables.map(Iova(0x10'0000), kRam);
    tables.unmap(Iova(0));
    machine.manager.iotlb_domain(kDomain);
    EXPECT_GE(machine.manager.verify().errors, 2U);
    device.silent.recorder.fail = nullptr;
    machine.manager.iotlb_domain(kDomain);
    EXPECT_TRUE(machine.manager.verify().clean());
    machine.manager.remove_device(device);
}

}  // namespace
}  // namespace umbra::testing
