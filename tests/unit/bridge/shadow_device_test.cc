// SPDX-License-Identifier: GPL-2.0-or-later
//
// The shadow's host calls on their way to C: several mappings in one call, and how far it came.
#include "plugin/bridge/shadow_device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace umbra::testing {
namespace {

// The other side of shadow.h: takes mappings until it is full.
class Host {
  public:
    [[nodiscard]] UmbraHostMapper mapper() {
        return {
            .opaque = this,
            .source = [](void*) -> uint16_t { return 0x0010; },
            .map = map,
            .unmap = [](void*, uint64_t, uint64_t) { return 0; },
            .set_mode = [](void*, UmbraDmaMode) {},
            .usable = nullptr,
            .usable_count = 0,
            .write_implies_read = false,
        };
    }

    std::vector<UmbraHostMapping> taken;
    std::size_t room = std::numeric_limits<std::size_t>::max();
    unsigned calls = 0;

  private:
    static size_t map(void* opaque, const UmbraHostMapping* mappings, size_t count, int* error) {
        auto& self = *static_cast<Host*>(opaque);
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

void expect_same(const UmbraHostMapping& actual, const shadow::HostMapping& wanted) {
    EXPECT_EQ(actual.iova, wanted.iova.value());
    EXPECT_EQ(actual.bytes, wanted.bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(actual.host), wanted.host.value());
    EXPECT_EQ(actual.guest, wanted.guest.value());
    EXPECT_EQ(actual.access, static_cast<unsigned>(wanted.access));
}

class ShadowDeviceMaps : public ::testing::TestWithParam<std::size_t> {};

TEST_P(ShadowDeviceMaps, EveryMappingArrivesOnceAndInOrder) {
    Host host;
    UmbraShadowDevice device(host.mapper());
    const std::vector<shadow::HostMapping> wanted = mappings(GetParam());
    const shadow::MapProgress progress = device.map_all(wanted);
    EXPECT_TRUE(progress.result.ok());
    EXPECT_EQ(progress.mapped, wanted.size());
    ASSERT_EQ(host.taken.size(), wanted.size());
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        expect_same(host.taken[i], wanted[i]);
    }
    // Not one by one.
    EXPECT_LE(host.calls, wanted.size() / 32 + 1);
}

TEST_P(ShadowDeviceMaps, TheFirstFailureEndsIt) {
    for (std::size_t room = 0; room < GetParam(); ++room) {
        Host host;
        host.room = room;
        UmbraShadowDevice device(host.mapper());
        const shadow::MapProgress progress = device.map_all(mappings(GetParam()));
        ASSERT_EQ(progress.mapped, room);
        ASSERT_EQ(progress.result.error(), ENOSPC);
        ASSERT_EQ(host.taken.size(), room);
    }
}

INSTANTIATE_TEST_SUITE_P(Counts, ShadowDeviceMaps,
                         ::testing::Values(0, 1, 2, 63, 64, 65, 128, 300));

TEST(ShadowDeviceMaps, OneMappingIsOneCall) {
    Host host;
    host.room = 1;
    UmbraShadowDevice device(host.mapper());
    EXPECT_TRUE(device.map(mappings(1).front()).ok());
    EXPECT_EQ(device.map(mappings(1).front()).error(), ENOSPC);
    EXPECT_EQ(host.calls, 2U);
}

std::vector<IovaRange> holes_with(const std::vector<UmbraIovaRange>& usable) {
    Host host;
    UmbraHostMapper mapper = host.mapper();
    mapper.usable = usable.data();
    mapper.usable_count = usable.size();
    const UmbraShadowDevice device(mapper);
    return {device.holes().begin(), device.holes().end()};
}

TEST(ShadowDeviceHoles, LieBesideWhatTheHostCanMap) {
    constexpr std::uint64_t kLast = ~std::uint64_t{0};
    EXPECT_TRUE(holes_with({}).empty()) << "a host that does not say";
    EXPECT_TRUE(holes_with({{0, kLast}}).empty());
    EXPECT_EQ(holes_with({{0, 0x7f'ffff'ffff}}),
              (std::vector<IovaRange>{{Iova(0x80'0000'0000), Iova(kLast)}}));
    EXPECT_EQ(holes_with({{0xfef0'0000, 0x1'ffff'ffff}, {0x1000, 0xfedf'ffff}, {0x2000, 0x2fff}}),
              (std::vector<IovaRange>{{Iova(0), Iova(0xfff)},
                                      {Iova(0xfee0'0000), Iova(0xfeef'ffff)},
                                      {Iova(0x2'0000'0000), Iova(kLast)}}));
    EXPECT_EQ(holes_with({{0x1000, kLast}}), (std::vector<IovaRange>{{Iova(0), Iova(0xfff)}}));
}

}  // namespace
}  // namespace umbra::testing
