// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/guest_memory.h"

#include <bit>

namespace umbra {

static_assert(std::endian::native == std::endian::little,
              "VT-d structures are little-endian and are used in place");

std::optional<std::uint64_t> GuestMemory::read_u64(Gpa address) const {
    if (!address.is_aligned(sizeof(std::uint64_t))) {
        return std::nullopt;
    }
    const std::byte* page = page_pointer(address.align_down(kPageSize));
    if (page == nullptr) {
        return std::nullopt;
    }
    const auto* entry = reinterpret_cast<const std::uint64_t*>(page + address.offset_in(kPageSize));
    return __atomic_load_n(entry, __ATOMIC_RELAXED);
}

}  // namespace umbra
