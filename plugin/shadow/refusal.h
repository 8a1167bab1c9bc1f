// SPDX-License-Identifier: GPL-2.0-or-later
//
// Why the host refused a map, and what follows for the other leaves that are missing. Each reason
// has a policy of its own:
//
//   full         The host takes no more mappings, whatever their addresses (type1's
//                dma_entry_limit). No other map is tried until an unmap has made room. Then all
//                leaves that are missing are tried again, until the host is full once more.
//   no memory    No more memory can be pinned (RLIMIT_MEMLOCK). A smaller mapping may still fit, so
//                other maps are tried; many such refusals in a row end a sync's maps. An unmap
//                makes room here, too.
//   bad address  The host cannot map this IOVA or this memory. That says nothing of other leaves,
//                so these are tried in any case. The leaf itself is tried again if the guest names
//                its pages; a pass over everything tries a few leaves of this kind, and the next
//                pass tries the next few.
//
// A timer tries all of them again, since an operator can raise a limit without the guest's doing
// (see Manager::retry()).
#pragma once

#include <cerrno>
#include <cstdint>

namespace umbra::shadow {

enum class Refusal : std::uint8_t { full, no_memory, bad_address };

// `error` is the positive errno of a map that the host refused.
[[nodiscard]] constexpr Refusal refusal_of(int error) {
    switch (error) {
        case ENOSPC:
            return Refusal::full;
        case ENOMEM:
        case EAGAIN:
        case EDQUOT:
            return Refusal::no_memory;
        default:
            return Refusal::bad_address;
    }
}

}  // namespace umbra::shadow
