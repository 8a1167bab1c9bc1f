// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/bridge/operator_events.h"

#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstring>

namespace umbra::bridge {
namespace {

using shadow::Event;
using shadow::Trouble;

const char* describe(Trouble trouble) {
    switch (trouble) {
        case Trouble::map_failed:
            return "the host refused to map what the guest's tables map; the device cannot reach it until a retry succeeds";
        case Trouble::unmap_refused:
            return "the host refused to unmap what the guest no longer maps; the device can reach it until a retry succeeds";
        case Trouble::not_ram:
            return "the guest maps addresses that are not RAM; they are not mapped on the host";
        case Trouble::mapping_budget:
            return "the guest maps more than max-mappings allows; the rest is not mapped";
        case Trouble::table_budget:
            return "the guest has more table pages than max-tables allows; the rest is not mapped";
        case Trouble::iova_hole:
            return "the guest maps IOVAs that the host cannot map; the device cannot reach them";
        case Trouble::table_loop:
            return "a guest table refers to itself; it is not followed";
    }
    return "";
}

}  // namespace

void OperatorEvents::trouble(const Event& event) {
    std::array<char, 768> text{};
    std::array<char, 96> cause{};
    if (event.error != 0) {
        std::snprintf(cause.data(), cause.size(), " (%s)", std::strerror(event.error));
    }
    std::array<char, 96> others{};
    if (event.untold != 0) {
        std::snprintf(others.data(), others.size(),
                      " Others like it that were not told of: %" PRIu64 ".", event.untold);
    }
    std::snprintf(text.data(), text.size(),
                  "domain %u, IOVA 0x%" PRIx64 "-0x%" PRIx64 ": %s%s. Cause: %s. Remedy: %s.%s",
                  static_cast<unsigned>(event.domain), event.range.first.value(),
                  event.range.last.value(), describe(event.trouble), cause.data(), event.limit,
                  event.remedy, others.data());
    platform_.report(platform_.opaque, true, text.data());
}

void OperatorEvents::healed(DomainId domain, Trouble trouble) {
    std::array<char, 256> text{};
    std::snprintf(text.data(), text.size(), "domain %u has healed; it was: %s",
                  static_cast<unsigned>(domain), describe(trouble));
    platform_.report(platform_.opaque, false, text.data());
}

void OperatorEvents::stop_machine(const Event& event) {
    std::array<char, 768> text{};
    std::snprintf(
        text.data(), text.size(),
        "domain %u: the machine stops before the guest relies on what is not mapped (on-map-error=stop). Remedy the cause, and 'cont' tries again; or 'qom-set %s on-map-error report', and 'cont' lets the guest go on without it",
        static_cast<unsigned>(event.domain), platform_.qom_path);
    platform_.report(platform_.opaque, true, text.data());
    platform_.stop_machine(platform_.opaque);
}

}  // namespace umbra::bridge
