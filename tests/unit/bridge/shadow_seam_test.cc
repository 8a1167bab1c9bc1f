// SPDX-License-Identifier: GPL-2.0-or-later
//
// The shadow's host calls on their way to C: several mappings in one call, and how far it came.
#include "plugin/bridge/shadow_seam.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace umbra::testing {
namespace {

// The other side of bridge.h: takes mappings until it is full.
class Port {
  public:
    [[nodiscard]] UmbraHostPort c_port() {
        return {
            .opaque = this,
            .source = [](void*) -> uint16_t { return 0x0010; },
            .map = map,
            .unmap = [](void*, uint64_t, uint64_t) { return 0; },
            .set_mode = [](void*, UmbraDmaMode) {},
        };
    }

    std::vector<UmbraMapping> taken;
    std::size_t room = std::numeric_limits<std::size_t>::max();
    unsigned calls = 0;

  private:
    static size_t map(void* opaque, const UmbraMapping* mappings, size_t count, int* error) {
        auto& self = *static_cast<Port*>(opaque);
        ++self.calls;
        const std::size_t taken = std::min(count, self.room - self.taken.size());
        self.taken.insert(self.taken.end(), mappings, mappings + taken);
        if (taken < count) {
            *error = ENOSPC;
        }
        return taken;
    }
};

std::vector<shadow::HostMapping> mappings(std::size_t count) {
    std::vector<shadow::HostMapping> made;
    for (std::size_t i = 0; i < count; ++i) {
        made.push_back({.iova = Iova(0x1'0000'0000 + i * 2 * kPageSize),
                        .bytes = kPageSize,
                        .host = HostAddress(0x7f00'0000'0000 + i * 3 * kPageSize),
                        .guest = Gpa(0x4000'0000 + i * 3 * kPageSize),
                        .access = i % 2 == 0 ? Access::read : Access::read_write});
    }
    return made;
}

void expect_same(const UmbraMapping& actual, const shadow::HostMapping& wanted) {
    EXPECT_EQ(actual.iova, wanted.iova.value());
    EXPECT_EQ(actual.bytes, wanted.bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(actual.host), wanted.host.value());
    EXPECT_EQ(actual.guest, wanted.guest.value());
    EXPECT_EQ(actual.access, static_cast<unsigned>(wanted.access));
}

class ShadowSeam : public ::testing::TestWithParam<std::size_t> {};

TEST_P(ShadowSeam, EveryMappingArrivesOnceAndInOrder) {
    Port port;
    UmbraShadowDevice device(port.c_port());
    const std::vector<shadow::HostMapping> wanted = mappings(GetParam());
    const shadow::MapProgress progress = device.map_all(wanted);
    EXPECT_TRUE(progress.result.ok());
    EXPECT_EQ(progress.mapped, wanted.size());
    ASSERT_EQ(port.taken.size(), wanted.size());
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        expect_same(port.taken[i], wanted[i]);
    }
    // Not one by one.
    EXPECT_LE(port.calls, wanted.size() / 32 + 1);
}

TEST_P(ShadowSeam, TheFirstFailureEndsIt) {
    for (std::size_t room = 0; room < GetParam(); ++room) {
        Port port;
        port.room = room;
        UmbraShadowDevice device(port.c_port());
        const shadow::MapProgress progress = device.map_all(mappings(GetParam()));
        ASSERT_EQ(progress.mapped, room);
        ASSERT_EQ(progress.result.error(), ENOSPC);
        ASSERT_EQ(port.taken.size(), room);
    }
}

INSTANTIATE_TEST_SUITE_P(Counts, ShadowSeam, ::testing::Values(0, 1, 2, 63, 64, 65, 128, 300));

TEST(ShadowSeam, OneMappingIsOneCall) {
    Port port;
    port.room = 1;
    UmbraShadowDevice device(port.c_port());
    EXPECT_TRUE(device.map(mappings(1).front()).ok());
    EXPECT_EQ(device.map(mappings(1).front()).error(), ENOSPC);
    EXPECT_EQ(port.calls, 2U);
}

}  // namespace
}  // namespace umbra::testing
