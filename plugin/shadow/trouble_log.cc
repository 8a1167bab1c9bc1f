// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/trouble_log.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace umbra::shadow {
namespace {

struct Advice {
    const char* limit;
    const char* remedy;
};

Advice advice_on_map(int error) {
    switch (error) {
        case ENOSPC:
            return {"vfio_iommu_type1.dma_entry_limit",
                    "raise the module parameter and restart the VM, use iommufd instead of the "
                    "type1 container, or have the guest map less at a time"};
        case ENOMEM:
            return {"RLIMIT_MEMLOCK",
                    "raise the locked-memory limit of the QEMU process (ulimit -l, LimitMEMLOCK= "
                    "of systemd) to the guest's memory for each passed-through device"};
        case EINVAL:
            return {"the host IOMMU's IOVA ranges",
                    "the guest uses an IOVA that the host IOMMU reserves or cannot reach; see the "
                    "kernel log of the host, and /sys/kernel/iommu_groups/*/reserved_regions"};
        case EFAULT:
            return {"memory that cannot be pinned",
                    "the memory backend behind this address cannot be used for DMA"};
        case EEXIST:
            return {"an older host mapping",
                    "a host mapping at this IOVA could not be removed before; see the refused "
                    "unmap"};
        default:
            return {"the host refused", "see the kernel log of the host"};
    }
}

Advice advice_on(Trouble trouble, int error) {
    switch (trouble) {
        case Trouble::map_failed:
            return advice_on_map(error);
        case Trouble::unmap_refused:
            return {"the host refused",
                    "the device can still reach this memory until a retry succeeds; see the "
                    "kernel log of the host"};
        case Trouble::not_ram:
            return {"an address without guest RAM",
                    "the guest maps an I/O region or nothing for DMA; peer-to-peer DMA is not "
                    "supported"};
        case Trouble::mapping_budget:
            return {"max-mappings", "raise it if the guest is trusted to map that much"};
        case Trouble::table_budget:
            return {"max-tables", "raise it if the guest is trusted to map that much"};
        case Trouble::iova_hole:
            return {
                "an IOVA range that the host's IOMMU cannot map",
                "keep the guest's IOVAs out of this range: the host lists it among its reserved "
                "regions (/sys/kernel/iommu_groups/*/reserved_regions), or it is beyond the "
                "host's address width"};
        case Trouble::table_loop:
            return {"a table that refers to itself",
                    "the guest's page tables are broken or hostile; what they refer to is not "
                    "mapped"};
    }
    return {"", ""};
}

}  // namespace

bool TroubleThrottle::admits(Trouble trouble) {
    const std::uint64_t now = clock_.now_ns();
    Kind& kind = of(trouble);
    if (now < kind.quiet_until_ns) {
        return false;
    }
    kind.quiet_until_ns = now + kPauseNs;
    return true;
}

std::uint64_t TroubleThrottle::take_untold(Trouble trouble) {
    return std::exchange(of(trouble).untold, 0);
}

void TroubleLog::report(Trouble trouble, IovaRange range, int error) {
    const bool stops =
        policy_.choice == OnMapError::stop && trouble == Trouble::map_failed && !asked_to_stop_;
    if (state_of(trouble) != State::none && !stops) {
        return;
    }
    const Advice advice = advice_on(trouble, error);
    Event event = {.trouble = trouble,
                   .domain = domain_,
                   .range = range,
                   .error = error,
                   .limit = advice.limit,
                   .remedy = advice.remedy};
    // A machine never stops without a reason told. The operator decides how often it goes on, and
    // so how often it stops.
    if (throttle_.admits(trouble) || stops) {
        event.untold = throttle_.take_untold(trouble);
        tell(event);
    } else {
        state_of(trouble) = State::held_back;
        begun_[static_cast<std::size_t>(trouble)] = event;
        throttle_.hold_back(trouble);
    }
    if (stops) {
        hold(event);
    }
}

void TroubleLog::hold(const Event& event) {
    policy_.holding_domains += holds_ ? 0 : 1;
    holds_ = true;
    asked_to_stop_ = true;
    cause_ = event;
    events_.stop_machine(event);
}

void TroubleLog::insist() {
    if (holds_ && !asked_to_stop_) {
        tell(cause_);
        hold(cause_);
    }
}

void TroubleLog::let_go() {
    policy_.holding_domains -= holds_ ? 1 : 0;
    holds_ = false;
    asked_to_stop_ = false;
}

void TroubleLog::tell(const Event& event) {
    state_of(event.trouble) = State::told;
    events_.trouble(event);
}

void TroubleLog::remind() {
    for (std::size_t i = 0; i < kTroubleKinds; ++i) {
        Event& event = begun_[i];
        if (states_[i] == State::held_back && throttle_.admits(event.trouble)) {
            // The event itself is among the untold ones, unless another event has reported them.
            const std::uint64_t untold = throttle_.take_untold(event.trouble);
            event.untold = untold - std::min<std::uint64_t>(untold, 1);
            tell(event);
        }
    }
}

void TroubleLog::forget(Trouble trouble) {
    state_of(trouble) = State::none;
    if (trouble == Trouble::map_failed) {
        let_go();
    }
}

void TroubleLog::heal(Trouble trouble) {
    if (state_of(trouble) == State::told) {
        events_.healed(domain_, trouble);
    }
    forget(trouble);
}

}  // namespace umbra::shadow
