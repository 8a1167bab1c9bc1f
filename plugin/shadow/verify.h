// SPDX-License-Identifier: GPL-2.0-or-later
//
// An independent check of the shadow. It walks the guest's tables again, entry by entry, and
// compares the result with the mappings on the host. A change that the guest has not invalidated
// yet makes a pending difference and no error.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "plugin/shadow/host_mapper.h"
#include "plugin/vtd/types.h"

namespace umbra::shadow {

// One stretch of IOVAs where guest and host disagree in the same way.
struct Difference {
    enum class Kind : std::uint8_t {
        // The host has what the tables said at the last invalidation, and the guest has changed
        // them since. Or the guest still waits for an invalidation, and its map was put off.
        pending,
        // The host has something else: a map or unmap failed, or the shadow is wrong.
        error,
    };
    Kind kind = Kind::error;
    DomainId domain{};
    SourceId source;  // the device whose host mappings differ
    // `expected` is what the guest's tables say at present, `actual` what the host has. Both cover
    // the same IOVAs. Access none means that nothing is mapped there.
    HostMapping expected;
    HostMapping actual;

    // "domain 3, device 00:04.0, iova 0x…-0x…: expected …, actual … (pending)"
    [[nodiscard]] std::string to_string() const;
};

struct Verification {
    static constexpr std::size_t kListed = 1000;

    std::uint64_t domains = 0;
    std::uint64_t devices = 0;
    std::uint64_t pages_checked = 0;  // 4 KiB pages that the guest's tables or the host map
    std::uint64_t errors = 0;         // stretches
    std::uint64_t pending = 0;
    // False if some guest tables exceed the budgets and were not walked to the end.
    bool complete = true;
    // If not complete: the lowest IOVA at which the walk of a device's tables stopped. From there
    // on, that device's host mappings were compared with what the tables said at the last
    // invalidation. So errors are still found there, and changes since are not.
    std::optional<Iova> stopped_at;
    // The first kListed differences, errors before pending ones within a device.
    std::vector<Difference> differences;

    [[nodiscard]] bool clean() const { return errors == 0; }
};

}  // namespace umbra::shadow
