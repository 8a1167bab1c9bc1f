// SPDX-License-Identifier: GPL-2.0-or-later
//
// How this folder writes a layout of the VT-d specification down: each field by the bits that it
// has in the specification's figure, and the reserved bits as all those that no field has.
//
//     // Example register, 11.4.99
//     struct Example : RegisterAt<0x100, 64> {
//         using Domain = Field<31, 16, DomainId>;  // DID
//         using Enable = Flag<0>;                  // E
//         using All = Layout<64, Domain, Enable>;
//     };
//     DomainId domain = Example::Domain::get(word);
//     Example::Enable::set(word, true);
//     bool valid = !Example::All::has_reserved(word);
//
// Layouts of 128 bits number their bits from 0 to 127, as the figures do, and their fields read
// and write Quads. A field that the unit does not support is not declared, and so is reserved.
//
// Everything here is constexpr and costs what the shift and the mask cost.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

namespace umbra::vtd::spec {

// 128 bits in guest memory or in a pair of registers: `low` is bits 63:0, `high` bits 127:64.
struct Quads {
    std::uint64_t low = 0;
    std::uint64_t high = 0;

    friend constexpr bool operator==(const Quads&, const Quads&) = default;
};
static_assert(sizeof(Quads) == 16, "read from guest memory in place");

// Bits `High` to `Low`, both included, which lie in one quadword. The value is a T: a number, an
// enumeration, an address or a source-id. Bit `Unit` of the quadword is bit 0 of the value.
template <unsigned High, unsigned Low, class T, unsigned Unit>
struct BitField {
    static_assert(Low <= High && High < 128 && High / 64 == Low / 64);
    static_assert(Unit <= Low % 64);

    static constexpr bool kInHigh = Low >= 64;
    static constexpr unsigned kLast = High;
    // Of the quadword that holds the field.
    static constexpr std::uint64_t kMask = ~std::uint64_t{0} >> (63 - (High - Low)) << Low % 64;
    // The field with every bit set.
    static constexpr std::uint64_t kLargest = kMask >> Unit;

    [[nodiscard]] static constexpr T get(std::uint64_t word) requires(!kInHigh) {
        return value_in(word);
    }
    [[nodiscard]] static constexpr T get(const Quads& quads) {
        return value_in(kInHigh ? quads.high : quads.low);
    }

    // The quadword that has `value` in this field, and 0 elsewhere. Bits that do not fit are cut.
    [[nodiscard]] static constexpr std::uint64_t place(T value) {
        return raw(value) << Unit & kMask;
    }

    // Replaces the field and leaves the rest as it is. `Word` is an unsigned integer.
    template <class Word>
    static constexpr void set(Word& word, T value) requires(!kInHigh) {
        word = static_cast<Word>((word & ~kMask) | place(value));
    }
    static constexpr void set(Quads& quads, T value) {
        std::uint64_t& word = kInHigh ? quads.high : quads.low;
        word = (word & ~kMask) | place(value);
    }

  private:
    static constexpr T value_in(std::uint64_t word) {
        if constexpr (std::is_same_v<T, bool>) {
            return (word & kMask) != 0;
        } else {
            return static_cast<T>((word & kMask) >> Unit);
        }
    }
    static constexpr std::uint64_t raw(T value) {
        if constexpr (requires { value.value(); }) {
            return value.value();
        } else {
            return static_cast<std::uint64_t>(value);
        }
    }
};

// A number, counted from the field's lowest bit.
template <unsigned High, unsigned Low, class T = std::uint64_t>
using Field = BitField<High, Low, T, Low % 64>;

// One bit.
template <unsigned Position>
using Flag = BitField<Position, Position, bool, Position % 64>;

// An aligned address or offset in bytes, of which the field holds the bits of the same numbers.
template <unsigned High, unsigned Low, class T = std::uint64_t>
using AddressField = BitField<High, Low, T, 0>;

// All fields of a register, descriptor or table entry of `Width` bits: 32, 64 or 128.
template <unsigned Width, class... Fields>
struct Layout {
    static_assert(Width == 32 || Width == 64 || Width == 128);
    static_assert(((Fields::kLast < Width) && ...), "a field lies outside of the layout");

    static constexpr unsigned kWidth = Width;
    static constexpr Quads kFields = {
        (std::uint64_t{0} | ... | (Fields::kInHigh ? 0 : Fields::kMask)),
        (std::uint64_t{0} | ... | (Fields::kInHigh ? Fields::kMask : 0))};
    static_assert((0 + ... + std::popcount(Fields::kMask)) ==
                      std::popcount(kFields.low) + std::popcount(kFields.high),
                  "two fields share a bit");

    // The bits that no field has, in 63:0 and 127:64.
    static constexpr std::uint64_t kReserved =
        ~kFields.low & (Width == 32 ? 0xffff'ffff : ~std::uint64_t{0});
    static constexpr std::uint64_t kReservedHigh = Width == 128 ? ~kFields.high : 0;

    [[nodiscard]] static constexpr bool has_reserved(std::uint64_t word) requires(Width <= 64) {
        return (word & kReserved) != 0;
    }
    [[nodiscard]] static constexpr bool has_reserved(const Quads& quads) requires(Width == 128) {
        return (quads.low & kReserved) != 0 || (quads.high & kReservedHigh) != 0;
    }
};

// The bits of several fields of one quadword.
template <class... Fields>
inline constexpr std::uint64_t kMaskOf = (std::uint64_t{0} | ... | Fields::kMask);

// A register of 64 bits as the two words that it takes.
constexpr std::uint32_t low_word(std::uint64_t value) {
    return Field<31, 0, std::uint32_t>::get(value);
}
constexpr std::uint32_t high_word(std::uint64_t value) {
    return Field<63, 32, std::uint32_t>::get(value);
}
constexpr std::uint64_t joined(std::uint32_t high, std::uint32_t low) {
    return Field<63, 32, std::uint32_t>::place(high) | low;
}

// Mask of the bits that a physical address of `width` bits (at most 63) does not have.
constexpr std::uint64_t above_address_width(unsigned width) {
    return ~std::uint64_t{0} << width;
}

}  // namespace umbra::vtd::spec
