// SPDX-License-Identifier: GPL-2.0-or-later
//
// The runs of guest RAM as of one generation of the RamMap. A look-up remembers the run that it
// found, because the next one is mostly in the same run.
//
// Threading: one thread at a time, also for look-ups.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "plugin/shadow/ram_map.h"
#include "plugin/vtd/types.h"

namespace umbra::shadow {

// The part of a leaf that lies in one run of guest RAM, and the access that a device has there.
struct RamPiece {
    std::uint64_t offset = 0;  // from the start of the leaf, bytes
    std::uint64_t bytes = 0;
    HostAddress host;
    Access access = Access::none;

    friend bool operator==(const RamPiece&, const RamPiece&) = default;
};

class RamSnapshot {
  public:
    // Takes the list of runs anew if `ram` has another generation than last time. True if the list
    // or `write_implies_read` differs from the one before, which is then in `previous`. If false,
    // the content of `previous` is undefined. `write_implies_read`: the hosts grant reads wherever
    // they grant writes (HostMapper::write_implies_read()).
    bool update(const RamMap& ram, RamSnapshot& previous, bool write_implies_read = false);
    [[nodiscard]] bool write_implies_read() const { return write_grant_ == Access::read_write; }

    // [guest, guest + bytes) as one piece. A piece of 0 bytes if it is not in one run as a whole,
    // or if the run allows nothing of `access`.
    [[nodiscard]] RamPiece whole(Gpa guest, std::uint64_t bytes, Access access) const {
        const RamRun* run = run_around(guest, bytes);
        const Access allowed = run != nullptr ? allowed_in(*run, access) : Access::none;
        if (allowed == Access::none) {
            return {};
        }
        return {0, bytes, run->host + (guest - run->first), allowed};
    }

    // The run in which [guest, guest + bytes) lies as a whole, or nullptr.
    [[nodiscard]] const RamRun* run_around(Gpa guest, std::uint64_t bytes) const {
        const RamRun* run = find(guest);
        return run != nullptr && run->holds(guest, bytes) ? run : nullptr;
    }
    // What the host grants for the part of `access` that `run` allows.
    [[nodiscard]] Access allowed_in(const RamRun& run, Access access) const {
        const Access allowed = run.read_only ? access & Access::read : access;
        return allowed == Access::write ? write_grant_ : allowed;
    }

    // Calls `visit(RamPiece)` for each piece of [guest, guest + bytes) that can be reached with
    // some of `access`, in order.
    template <class Visit>
    void pieces(Gpa guest, std::uint64_t bytes, Access access, Visit&& visit) const {
        std::uint64_t offset = 0;
        for (const RamRun* run = find(guest); run != nullptr && run != end() && offset < bytes;
             ++run) {
            const Gpa at = guest + offset;
            if (at < run->first) {
                const std::uint64_t hole = run->first - at;
                if (hole >= bytes - offset) {
                    return;
                }
                offset += hole;
            }
            const std::uint64_t into = guest + offset - run->first;
            const std::uint64_t length = std::min(run->bytes - into, bytes - offset);
            const Access allowed = allowed_in(*run, access);
            if (allowed != Access::none) {
                visit(RamPiece{offset, length, run->host + into, allowed});
            }
            offset += length;
        }
    }

    // Whether a part of [guest, guest + bytes) can be reached with some of `access`, while the
    // whole is not one piece.
    [[nodiscard]] bool in_pieces(Gpa guest, std::uint64_t bytes, Access access) const {
        bool any = false;
        pieces(guest, bytes, access, [&](const RamPiece&) { any = true; });
        return any && whole(guest, bytes, access).bytes == 0;
    }

    // Whether the host maps [guest, guest + bytes) in the same way for `a` with `access_a` as for
    // `b` with `access_b`. The accesses can differ: a device cannot write to ROM in any case.
    [[nodiscard]] static bool same(const RamSnapshot& a, Access access_a, const RamSnapshot& b,
                                   Access access_b, Gpa guest, std::uint64_t bytes);

  private:
    [[nodiscard]] const RamRun* end() const { return runs_.data() + runs_.size(); }

    // The first run that ends above `guest`, which can also start above it; nullptr if there is
    // none.
    [[nodiscard]] const RamRun* find(Gpa guest) const {
        if (last_ < runs_.size()) {
            const RamRun& run = runs_[last_];
            if (guest >= run.first && guest - run.first < run.bytes) {
                return &run;
            }
        }
        return search(guest);
    }
    [[nodiscard]] const RamRun* search(Gpa guest) const;

    std::vector<RamRun> runs_;
    Access write_grant_ = Access::write;  // what the host grants for writes alone
    std::uint64_t generation_ = 0;
    bool taken_ = false;
    mutable std::size_t last_ = 0;
};

}  // namespace umbra::shadow
