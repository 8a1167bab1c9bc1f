// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/trouble_log.h"

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
                    "the guest uses an IOVA that the host IOMMU reserves or cannot reach; try a "
                    "smaller address width (aw-bits=39)"};
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
        case Trouble::table_loop:
            return {"a table that refers to itself",
                    "the guest's page tables are broken or hostile; what they refer to is not "
                    "mapped"};
    }
    return {"", ""};
}

}  // namespace

void TroubleLog::report(Trouble trouble, IovaRange range, int error) {
    const bool stops = policy_ == OnMapError::stop && trouble == Trouble::map_failed &&
                       !std::exchange(stopped_, true);
    const bool told = std::exchange(told_[static_cast<std::size_t>(trouble)], true);
    if (told && !stops) {
        return;
    }
    const Advice advice = advice_on(trouble, error);
    const Event event = {trouble, domain_, range, error, advice.limit, advice.remedy};
    events_.trouble(event);
    if (stops) {
        events_.stop_machine(event);
    }
}

void TroubleLog::forget(Trouble trouble) {
    told_[static_cast<std::size_t>(trouble)] = false;
    if (trouble == Trouble::map_failed) {
        stopped_ = false;
    }
}

void TroubleLog::heal(Trouble trouble) {
    if (told_[static_cast<std::size_t>(trouble)]) {
        events_.healed(domain_, trouble);
    }
    forget(trouble);
}

}  // namespace umbra::shadow
