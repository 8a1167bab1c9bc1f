// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/descriptor.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <optional>
#include <variant>

namespace umbra::vtd {
namespace {

using spec::Descriptor;

Capabilities everything() {
    UnitProperties properties;
    properties.device_iotlb = true;
    return capabilities_of(properties);
}

std::optional<QueueError> error_of(const Descriptor& descriptor,
                                   const Capabilities& capabilities = everything()) {
    const DecodedDescriptor decoded = decode(descriptor, capabilities);
    const auto* error = std::get_if<QueueError>(&decoded);
    return error == nullptr ? std::nullopt : std::optional(*error);
}

// What a descriptor asks for, in the terms of its fields.
struct Request {
    InvalidationKind kind = InvalidationKind::context_global;
    DomainId domain{};
    SourceId source;
    unsigned function_mask = 0;  // FM
    Iova address;
    unsigned address_mask = 0;  // AM
    bool leaf_only = false;
    IovaRange range{};
    std::uint16_t first_index = 0;
    unsigned index_mask = 0;
};

Request request_of(const Descriptor& descriptor) {
    const DecodedDescriptor decoded = decode(descriptor, everything());
    const auto* invalidation = std::get_if<Invalidation>(&decoded);
    if (invalidation == nullptr) {
        ADD_FAILURE() << "not decoded as an invalidation";
        return {};
    }
    const IovaRange range = invalidation->range;
    return {
        .kind = invalidation->kind,
        .domain = invalidation->domain,
        .source = invalidation->devices.source(),
        .function_mask = static_cast<unsigned>(std::popcount(invalidation->devices.ignored_bits())),
        .address = range.first,
        .address_mask =
            static_cast<unsigned>(std::popcount((range.last - range.first) / kPageSize)),
        .leaf_only = invalidation->leaf_only,
        .range = range,
        .first_index = invalidation->first_index,
        .index_mask = invalidation->index_mask};
}

// Bits `high` to `low`.
constexpr std::uint64_t bits(unsigned high, unsigned low) {
    return (~std::uint64_t{0} >> (63 - high)) & (~std::uint64_t{0} << low);
}
constexpr std::uint64_t bit(unsigned position) {
    return std::uint64_t{1} << position;
}

struct Layout {
    const char* name = "";
    Descriptor base;                // valid as it is
    std::uint64_t low_allowed = 0;  // bits that may be set besides type and granularity
    std::uint64_t high_allowed = 0;
};

// From the figures of specification 6.5.2.
const Layout kLayouts[] = {
    {"context global", {0x11, 0}, bits(31, 16) | bits(47, 32) | bits(49, 48), 0},
    {"context domain", {0x21, 0}, bits(31, 16) | bits(47, 32) | bits(49, 48), 0},
    {"context device", {0x31, 0}, bits(31, 16) | bits(47, 32) | bits(49, 48), 0},
    {"iotlb global", {0x12, 0}, bits(7, 6) | bits(31, 16), bits(63, 12) | bits(6, 0)},
    {"iotlb domain", {0x22, 0}, bits(7, 6) | bits(31, 16), bits(63, 12) | bits(6, 0)},
    {"iotlb page", {0x32, 0}, bits(7, 6) | bits(31, 16), bits(63, 12) | bits(6, 0)},
    {"device tlb", {0x03, 0}, bits(20, 16) | bits(47, 32), bits(63, 12) | bit(0)},
    {"interrupt global", {0x04, 0}, bits(31, 27) | bits(47, 32), 0},
    {"interrupt index", {0x14, 0}, bits(31, 27) | bits(47, 32), 0},
    {"wait", {0x05, 0}, bits(6, 4) | bits(63, 32), bits(63, 2)},
};

TEST(Descriptor, EveryReservedBitOfEveryTypeIsRefused) {
    for (const Layout& layout : kLayouts) {
        ASSERT_EQ(error_of(layout.base), std::nullopt) << layout.name;
        for (unsigned position = 0; position < 128; ++position) {
            Descriptor changed = layout.base;
            const bool in_low = position < 64;
            const std::uint64_t mask = bit(position % 64);
            (in_low ? changed.low : changed.high) |= mask;
            const bool type_bit = in_low && (mask & (bits(3, 0) | bits(11, 9) | bits(5, 4))) != 0;
            const bool allowed = ((in_low ? layout.low_allowed : layout.high_allowed) & mask) != 0;
            if (type_bit && !allowed) {
                continue;  // another type or granularity: the tests below
            }
            const auto error = error_of(changed);
            if (!allowed) {
                EXPECT_EQ(error, QueueError::reserved_field) << layout.name << " bit " << position;
                continue;
            }
            // Two fields have a largest value: AM 18, and IM 15.
            const bool too_large = (layout.base.low == 0x32 && position == 64 + 5) ||
                                   (layout.base.low == 0x14 && position == 31);
            EXPECT_EQ(error, too_large ? std::optional(QueueError::reserved_field) : std::nullopt)
                << layout.name << " bit " << position;
        }
    }
}

TEST(Descriptor, ReservedBitsNextToTheGranularityAreRefused) {
    // Bits 8:4 of a device TLB descriptor and bits 8:5 of an interrupt entry one hold no
    // granularity.
    for (unsigned position = 4; position <= 8; ++position) {
        EXPECT_EQ(error_of({0x03 | bit(position), 0}), QueueError::reserved_field) << position;
    }
    for (unsigned position = 5; position <= 8; ++position) {
        EXPECT_EQ(error_of({0x04 | bit(position), 0}), QueueError::reserved_field) << position;
    }
}

TEST(Descriptor, EveryOtherTypeIsRefused) {
    for (std::uint64_t low_part = 0; low_part < 16; ++low_part) {
        for (std::uint64_t extension = 0; extension < 8; ++extension) {
            const bool known = extension == 0 && low_part >= 1 && low_part <= 5;
            // A granularity that is valid for every type that has one.
            const std::uint64_t granularity = low_part <= 2 || low_part == 4 ? 1 << 4 : 0;
            const auto error = error_of({low_part | granularity | extension << 9, 0});
            EXPECT_EQ(error, known ? std::nullopt : std::optional(QueueError::bad_type))
                << low_part << " " << extension;
        }
    }
}

TEST(Descriptor, GranularityZeroIsReserved) {
    EXPECT_EQ(error_of({0x01, 0}), QueueError::reserved_field);
    EXPECT_EQ(error_of({0x02, 0}), QueueError::reserved_field);
}

TEST(Descriptor, TypesOfAbsentCapabilitiesAreRefused) {
    EXPECT_EQ(error_of({0x03, 0}, capabilities_of(UnitProperties())), QueueError::bad_type);
    UnitProperties properties;
    properties.interrupt_remapping = false;
    EXPECT_EQ(error_of({0x04, 0}, capabilities_of(properties)), QueueError::bad_type);
}

TEST(Descriptor, ContextCacheFields) {
    const Request request = request_of({0x31 | 0xbeefULL << 16 | 0x1234ULL << 32 | 2ULL << 48, 0});
    EXPECT_EQ(request.kind, InvalidationKind::context_device);
    EXPECT_EQ(request.domain, DomainId{0xbeef});
    EXPECT_EQ(request.source, SourceId(0x1234));
    EXPECT_EQ(request.function_mask, 2U);
    EXPECT_EQ(request_of({0x11, 0}).kind, InvalidationKind::context_global);
    EXPECT_EQ(request_of({0x21 | 7ULL << 16, 0}).kind, InvalidationKind::context_domain);
    EXPECT_EQ(request_of({0x21 | 7ULL << 16, 0}).domain, DomainId{7});
}

TEST(Descriptor, IotlbFields) {
    const Request request =
        request_of({0x32 | 0xffffULL << 16 | 3 << 6, 0x0000'7fff'ffff'f000 | 1 << 6});
    EXPECT_EQ(request.kind, InvalidationKind::iotlb_page);
    EXPECT_EQ(request.domain, DomainId{0xffff});
    EXPECT_EQ(request.address, Iova(0x0000'7fff'ffff'f000));
    EXPECT_EQ(request.address_mask, 0U);
    EXPECT_TRUE(request.leaf_only);
    EXPECT_EQ(request_of({0x12, 0}).kind, InvalidationKind::iotlb_global);
    EXPECT_EQ(request_of({0x22 | 3ULL << 16, 0}).kind, InvalidationKind::iotlb_domain);
    EXPECT_EQ(request_of({0x22 | 3ULL << 16, 0}).domain, DomainId{3});
}

TEST(Descriptor, AddressMaskUpToMamvAndNoFurther) {
    for (std::uint64_t mask = 0; mask < 64; ++mask) {
        const Descriptor descriptor{0x32, 0x0000'1234'5678'9000 | mask};
        if (mask > 18) {
            EXPECT_EQ(error_of(descriptor), QueueError::reserved_field) << mask;
            continue;
        }
        const Request request = request_of(descriptor);
        EXPECT_EQ(request.address_mask, mask);
        EXPECT_EQ(request.address.value(),
                  0x0000'1234'5678'9000 & ~((std::uint64_t{0x1000} << mask) - 1));
    }
}

TEST(Descriptor, DeviceTlbRanges) {
    const auto range = [](std::uint64_t high) { return request_of({0x03, high}).range; };
    EXPECT_EQ(range(0x5000), (IovaRange{Iova(0x5000), Iova(0x5fff)}));
    // S set: the lowest clear address bit gives the size, from 8 KiB up.
    EXPECT_EQ(range(0x4000 | 1), (IovaRange{Iova(0x4000), Iova(0x5fff)}));
    EXPECT_EQ(range(0x9000 | 1), (IovaRange{Iova(0x8000), Iova(0xbfff)}));
    EXPECT_EQ(range(0x10ff000 | 1), (IovaRange{Iova(0x1000000), Iova(0x11fffff)}));
    EXPECT_EQ(range(0xffff'ffff'ffff'f000),
              (IovaRange{Iova(0xffff'ffff'ffff'f000), Iova(0xffff'ffff'ffff'ffff)}));
    EXPECT_EQ(range(0x3fff'ffff'ffff'f001), (IovaRange{Iova(0), Iova(0x7fff'ffff'ffff'ffff)}));
    EXPECT_EQ(range(0xbfff'ffff'ffff'f001),
              (IovaRange{Iova(0x8000'0000'0000'0000), Iova(0xffff'ffff'ffff'ffff)}));
    EXPECT_EQ(range(0x7fff'ffff'ffff'f001), IovaRange::everything());
    EXPECT_EQ(range(0xffff'ffff'ffff'f001), IovaRange::everything());
    EXPECT_EQ(request_of({0x03 | 0xabcdULL << 32 | 0x1fULL << 16, 0}).source, SourceId(0xabcd));
}

TEST(Descriptor, InterruptEntryFields) {
    for (std::uint64_t mask = 0; mask < 32; ++mask) {
        const Descriptor descriptor{0x14 | mask << 27 | 0xffffULL << 32, 0};
        if (mask > 15) {
            EXPECT_EQ(error_of(descriptor), QueueError::reserved_field) << mask;
            continue;
        }
        const Request request = request_of(descriptor);
        EXPECT_EQ(request.kind, InvalidationKind::interrupt_index);
        EXPECT_EQ(request.index_mask, mask);
        EXPECT_EQ(request.first_index, (0xffffU << mask) & 0xffffU);
    }
    EXPECT_EQ(request_of({0x04, 0}).kind, InvalidationKind::interrupt_global);
}

TEST(Descriptor, WaitFields) {
    const DecodedDescriptor decoded =
        decode({0x05 | bit(5) | 0xdeadbeefULL << 32, 0x0123'4567'89ab'cdec}, everything());
    const auto* wait = std::get_if<WaitRequest>(&decoded);
    ASSERT_NE(wait, nullptr);
    EXPECT_TRUE(wait->status_write);
    EXPECT_FALSE(wait->interrupt);
    EXPECT_FALSE(wait->fence);
    EXPECT_EQ(wait->status_data, 0xdeadbeefU);
    EXPECT_EQ(wait->status_address, Gpa(0x0123'4567'89ab'cdec));

    const DecodedDescriptor other = decode({0x05 | bit(4) | bit(6), 0}, everything());
    wait = std::get_if<WaitRequest>(&other);
    ASSERT_NE(wait, nullptr);
    EXPECT_FALSE(wait->status_write);
    EXPECT_TRUE(wait->interrupt);
    EXPECT_TRUE(wait->fence);
}

}  // namespace
}  // namespace umbra::vtd
