// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/ram_snapshot.h"

#include <utility>

namespace umbra::shadow {

bool RamSnapshot::update(const RamMap& ram, RamSnapshot& previous, bool write_implies_read) {
    const std::uint64_t generation = ram.generation();
    const Access grant = write_implies_read ? Access::read_write : Access::write;
    const bool other_grant = grant != write_grant_;
    if (taken_ && generation == generation_) {
        if (other_grant) {
            previous = *this;
            write_grant_ = grant;
        }
        return other_grant;
    }
    previous.write_grant_ = write_grant_;
    write_grant_ = grant;
    std::swap(runs_, previous.runs_);
    previous.last_ = 0;
    runs_.clear();
    ram.list(runs_);
    generation_ = generation;
    taken_ = true;
    last_ = 0;
    return other_grant || runs_ != previous.runs_;
}

bool RamSnapshot::same(const RamSnapshot& a, Access access_a, const RamSnapshot& b, Access access_b,
                       Gpa guest, std::uint64_t bytes) {
    if (const RamPiece in_a = a.whole(guest, bytes, access_a); in_a.bytes != 0) {
        return in_a == b.whole(guest, bytes, access_b);
    }
    std::vector<RamPiece> in_a;
    a.pieces(guest, bytes, access_a, [&](const RamPiece& piece) { in_a.push_back(piece); });
    std::size_t count = 0;
    bool equal = true;
    b.pieces(guest, bytes, access_b, [&](const RamPiece& piece) {
        equal = equal && count < in_a.size() && in_a[count] == piece;
        ++count;
    });
    return equal && count == in_a.size();
}

const RamRun* RamSnapshot::search(Gpa guest) const {
    const auto found = std::upper_bound(
        runs_.begin(), runs_.end(), guest,
        [](Gpa address, const RamRun& run) { return address < run.first + run.bytes; });
    if (found == runs_.end()) {
        return nullptr;
    }
    last_ = static_cast<std::size_t>(found - runs_.begin());
    return &*found;
}

}  // namespace umbra::shadow
