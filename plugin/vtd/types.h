// SPDX-License-Identifier: GPL-2.0-or-later
//
// The address spaces and identifiers that a VT-d unit connects, each as a type of its own, so that
// an I/O virtual address cannot be passed where a guest-physical one is meant.
//
//   IOVA          what a device puts on the bus            (input of the second-stage table)
//   GPA           where that lands in guest memory         (output of the second-stage table)
//   HostAddress   where QEMU has that guest memory mapped  (what VFIO is told)
//
// All types here are values: trivially copyable, safe to use from any thread.
#pragma once

#include <compare>
#include <cstdint>

namespace umbra {

// An unsigned 64-bit byte address in the space named by Tag. Arithmetic wraps modulo 2^64, as it
// does on a bus; callers that must not wrap check first.
template <class Tag>
class Address {
  public:
    constexpr Address() = default;
    constexpr explicit Address(std::uint64_t value) : value_(value) {}

    [[nodiscard]] constexpr std::uint64_t value() const { return value_; }

    // `alignment` is a power of two, in bytes.
    [[nodiscard]] constexpr Address align_down(std::uint64_t alignment) const {
        return Address(value_ & ~(alignment - 1));
    }
    [[nodiscard]] constexpr bool is_aligned(std::uint64_t alignment) const {
        return (value_ & (alignment - 1)) == 0;
    }
    [[nodiscard]] constexpr std::uint64_t offset_in(std::uint64_t alignment) const {
        return value_ & (alignment - 1);
    }

    // The check takes the defaulted operator's own comparison with 0 for a null pointer.
    // NOLINTNEXTLINE(modernize-use-nullptr)
    friend constexpr auto operator<=>(Address, Address) = default;
    friend constexpr Address operator+(Address a, std::uint64_t bytes) {
        return Address(a.value_ + bytes);
    }
    friend constexpr Address operator-(Address a, std::uint64_t bytes) {
        return Address(a.value_ - bytes);
    }
    friend constexpr std::uint64_t operator-(Address a, Address b) { return a.value_ - b.value_; }

  private:
    std::uint64_t value_ = 0;
};

using Iova = Address<struct IovaTag>;
using Gpa = Address<struct GpaTag>;
using HostAddress = Address<struct HostAddressTag>;

inline constexpr unsigned kPageShift = 12;
inline constexpr std::uint64_t kPageSize = std::uint64_t{1} << kPageShift;
inline constexpr unsigned kEntriesPerTable = 512;

// A span of IOVAs with both ends included, so that the whole 64-bit space can be named.
struct IovaRange {
    Iova first;
    Iova last;

    static constexpr IovaRange everything() { return {Iova(0), Iova(~std::uint64_t{0})}; }
    // The naturally aligned block of 2^order pages of 4 KiB around `address`.
    static constexpr IovaRange pages(Iova address, unsigned order) {
        if (order >= 64 - kPageShift) {
            return everything();
        }
        const std::uint64_t bytes = kPageSize << order;
        const Iova first = address.align_down(bytes);
        return {first, first + (bytes - 1)};
    }
    // Size in bytes minus one, which fits into 64 bits for every range.
    [[nodiscard]] constexpr std::uint64_t extent() const { return last - first; }
    [[nodiscard]] constexpr bool contains(Iova iova) const { return first <= iova && iova <= last; }
    [[nodiscard]] constexpr bool overlaps(IovaRange other) const {
        return first <= other.last && other.first <= last;
    }
    friend constexpr bool operator==(IovaRange, IovaRange) = default;
};

// The guest's name for one second-stage address space. 16 bits because the unit reports ND = 6
// (64 Ki domains).
enum class DomainId : std::uint16_t {};

// PCI requester id: bus 15:8, device 7:3, function 2:0. The bus number is the one that the guest
// assigned, so it can change while the device exists.
class SourceId {
  public:
    constexpr SourceId() = default;
    constexpr explicit SourceId(std::uint16_t value) : value_(value) {}
    constexpr SourceId(std::uint8_t bus, std::uint8_t devfn)
        : value_(static_cast<std::uint16_t>(bus << 8 | devfn)) {}

    [[nodiscard]] constexpr std::uint16_t value() const { return value_; }
    [[nodiscard]] constexpr std::uint8_t bus() const {
        return static_cast<std::uint8_t>(value_ >> 8);
    }
    [[nodiscard]] constexpr std::uint8_t devfn() const {
        return static_cast<std::uint8_t>(value_ & 0xff);
    }
    // NOLINTNEXTLINE(modernize-use-nullptr): as for Address
    friend constexpr auto operator<=>(SourceId, SourceId) = default;

  private:
    std::uint16_t value_ = 0;
};

// The devices that a command or a table entry names: those whose source-id equals the given one, a
// few bits of the function number left out of the comparison.
class SourceMatch {
  public:
    constexpr SourceMatch() = default;
    // The one device `source`.
    constexpr explicit SourceMatch(SourceId source) : source_(source) {}
    // `encoding` has two bits, as the fields FM (specification 6.5.2.1) and SQ (9.9) have: 0
    // compares everything, 1 leaves out function bit 2, 2 leaves out bits 2:1, 3 leaves out bits
    // 2:0.
    constexpr SourceMatch(SourceId source, unsigned encoding)
        : source_(source),
          ignored_bits_(static_cast<std::uint8_t>(kFunction & ~(kFunction >> (encoding & 3)))) {}

    [[nodiscard]] constexpr SourceId source() const { return source_; }
    // Mask of the bits of the source-id that are not compared, 0 to 7.
    [[nodiscard]] constexpr std::uint8_t ignored_bits() const { return ignored_bits_; }
    [[nodiscard]] constexpr bool covers(SourceId other) const {
        return ((source_.value() ^ other.value()) & ~unsigned{ignored_bits_}) == 0;
    }

  private:
    static constexpr unsigned kFunction = 7;

    SourceId source_;
    std::uint8_t ignored_bits_ = 0;
};

// What a DMA wants to do, or what a mapping allows. A bit set; `none` is a valid value for both (a
// zero-length read asks for no access; an entry with R = W = 0 allows none).
enum class Access : std::uint8_t { none = 0, read = 1, write = 2, read_write = 3 };

constexpr Access operator&(Access a, Access b) {
    return static_cast<Access>(static_cast<unsigned>(a) & static_cast<unsigned>(b));
}
constexpr Access operator|(Access a, Access b) {
    return static_cast<Access>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
// True if everything that `wanted` asks for is in `granted`.
constexpr bool allows(Access granted, Access wanted) {
    return (granted & wanted) == wanted;
}

}  // namespace umbra
