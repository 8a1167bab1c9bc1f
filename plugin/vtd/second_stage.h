// SPDX-License-Identifier: GPL-2.0-or-later
//
// Second-stage tables: from an IOVA to a guest-physical address (specification 3.7 and 9.8). A
// table is a 4 KiB page of 512 entries; three levels translate 39 bits, four levels 48. Levels are
// numbered from 1 (entries are 4 KiB leaves) upwards. An entry of level 2 or 3 can be a leaf of
// 2 MiB or 1 GiB. A permission holds if the entries of all levels grant it.
//
// The tables have two users. `SecondStage::walk` follows one address down, for emulated devices.
// The shadow goes through whole tables and decodes each entry with `EntryFormat`.
#pragma once

#include <array>
#include <cstdint>

#include "plugin/vtd/fault_reason.h"
#include "plugin/vtd/guest_memory.h"
#include "plugin/vtd/spec/tables.h"
#include "plugin/vtd/types.h"

namespace umbra::vtd {

inline constexpr unsigned kMinLevels = 3;
inline constexpr unsigned kMaxLevels = 4;
inline constexpr unsigned kBitsPerLevel = 9;

// Low-order bits of an IOVA that an entry of `level` leaves untranslated: 12, 21, 30, 39.
constexpr unsigned level_shift(unsigned level) {
    return kPageShift + kBitsPerLevel * (level - 1);
}
// Bytes of IOVA space that one entry of `level` covers.
constexpr std::uint64_t level_span(unsigned level) {
    return std::uint64_t{1} << level_shift(level);
}
// Which of a table's 512 entries translates `iova` at `level`.
constexpr unsigned level_index(Iova iova, unsigned level) {
    return static_cast<unsigned>(iova.value() >> level_shift(level)) & (kEntriesPerTable - 1);
}
// Width in bits of the IOVAs that a table of `levels` levels translates: 39 or 48.
constexpr unsigned address_width(unsigned levels) {
    return level_shift(levels + 1);
}
constexpr bool fits_address_width(Iova iova, unsigned levels) {
    return (iova.value() >> address_width(levels)) == 0;
}

// One second-stage entry, decoded.
struct DecodedEntry {
    enum class Kind : std::uint8_t {
        not_present,  // R = W = 0: nothing else in it counts
        table,        // `address` is the next-level table
        leaf,         // `address` is the page, aligned to the level's span
        reserved,     // present with a reserved bit set: blocks what it covers (entry_reserved)
    };
    Kind kind = Kind::not_present;
    // What this entry by itself grants; none unless a table or a leaf.
    Access access = Access::none;
    Gpa address;

    friend constexpr bool operator==(DecodedEntry, DecodedEntry) = default;
};

// Which bits of an entry are reserved follows from the unit's properties. A value; any thread.
class EntryFormat {
  public:
    // `host_address_width` in bits, 31 to 52: address bits at and above it are reserved.
    // `snoop_control` is ECAP.SC: without it the SNP bit of leaves is reserved.
    constexpr EntryFormat(unsigned host_address_width, bool snoop_control) {
        using Entry = spec::SecondStageEntry;
        const std::uint64_t always =
            Entry::All::kReserved |
            (Entry::Address::kMask & spec::above_address_width(host_address_width));
        for (unsigned level = 1; level <= kMaxLevels; ++level) {
            // PS in an entry of level 4 is no leaf but a reserved bit.
            reserved_in_table_[level] = always | Entry::Snoop::kMask |
                                        (level > kLargestLeafLevel ? Entry::PageSize::kMask : 0);
            // A large leaf's address is aligned to its size.
            reserved_in_leaf_[level] = always | (snoop_control ? 0 : Entry::Snoop::kMask) |
                                       (Entry::Address::kMask & (level_span(level) - 1));
        }
    }

    // `level` is 1 to kMaxLevels, `entry` the value as read from guest memory.
    [[nodiscard]] constexpr DecodedEntry decode(unsigned level, std::uint64_t entry) const {
        using Entry = spec::SecondStageEntry;
        const Access access = Entry::Permissions::get(entry);
        if (access == Access::none) {
            return {};
        }
        const bool leaf = level == 1 || (level <= kLargestLeafLevel && Entry::PageSize::get(entry));
        if ((entry & (leaf ? reserved_in_leaf_ : reserved_in_table_)[level]) != 0) {
            return {DecodedEntry::Kind::reserved, Access::none, Gpa()};
        }
        return {leaf ? DecodedEntry::Kind::leaf : DecodedEntry::Kind::table, access,
                Entry::Address::get(entry)};
    }

  private:
    static constexpr unsigned kLargestLeafLevel = 3;

    // Indexed by level; element 0 is not used.
    std::array<std::uint64_t, kMaxLevels + 1> reserved_in_table_{};
    std::array<std::uint64_t, kMaxLevels + 1> reserved_in_leaf_{};
};

// The result of a walk for one IOVA.
struct WalkResult {
    bool ok = false;
    // False for an answer that no cache may keep for the whole page (see `page_mask`).
    bool cacheable = false;
    // What all levels together grant. If ok, at least what was asked for.
    Access granted = Access::none;
    FaultReason reason = FaultReason::none;  // if not ok
    // Level of the entry that decided; 0 if none was read.
    unsigned level = 0;
    // Where the IOVA itself lands, offset included. Meaningful if ok.
    Gpa address;
    // Bytes minus one of the naturally aligned block around the IOVA for which the answer holds:
    // that of the leaf (0xfff, 0x1fffff, 0x3fffffff). It is 0xfff for a large leaf that leads
    // partly into the interrupt address range, since neighbours have another answer; such a result
    // is not `cacheable`, because an invalidation names the leaf and not this piece.
    std::uint64_t page_mask = 0;
};

// Stateless but for its parameters; safe to use from any thread.
class SecondStage {
  public:
    // `memory` outlives the object. `zero_length_reads` is CAP.ZLR: a zero-length read
    // (Access::none) of a page that can only be written succeeds; without it, such a read needs
    // the read permission.
    SecondStage(const GuestMemory& memory, EntryFormat format, bool zero_length_reads)
        : memory_(memory), format_(format), zero_length_reads_(zero_length_reads) {}

    // Translates `iova` by the table at `table` with `levels` levels (3 or 4), and checks that
    // `wanted` is granted. Reads at most one entry a level.
    //
    // Reasons: beyond_address_width, invalid_context (the top-level table is no RAM),
    // next_table_inaccessible, entry_reserved, read_denied, write_denied,
    // output_is_interrupt_address. The caller keeps IOVAs of the interrupt range away.
    [[nodiscard]] WalkResult walk(Gpa table, unsigned levels, Iova iova, Access wanted) const;

    // As walk(), but asks for no permission: ok if any access at all is possible.
    [[nodiscard]] WalkResult find(Gpa table, unsigned levels, Iova iova) const;

    // Whether a mapping that grants `granted` serves a request that needs `wanted`. Also for
    // answers from the IOTLB.
    [[nodiscard]] bool serves(Access granted, Access wanted) const {
        if (wanted == Access::none) {
            return zero_length_reads_ ? granted != Access::none : allows(granted, Access::read);
        }
        return allows(granted, wanted);
    }

    [[nodiscard]] const EntryFormat& format() const { return format_; }

  private:
    // Follows the table to a leaf. `ok` if one was reached and grants anything.
    [[nodiscard]] WalkResult descend(Gpa table, unsigned levels, Iova iova) const;

    const GuestMemory& memory_;
    EntryFormat format_;
    bool zero_length_reads_;
};

}  // namespace umbra::vtd
