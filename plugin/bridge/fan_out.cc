// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/bridge/fan_out.h"

#include "plugin/bridge/convert.h"

namespace umbra::bridge {

using vtd::InvalidationKind;

void InvalidationFanOut::invalidated(const vtd::Invalidation& invalidation) {
    shadow_.invalidated(invalidation);
    const UmbraScope scope = to_c(invalidation);
    switch (invalidation.kind) {
        case InvalidationKind::context_global:
        case InvalidationKind::context_domain:
        case InvalidationKind::context_device:
            platform_.contexts_changed(platform_.opaque, &scope);
            break;
        case InvalidationKind::iotlb_global:
        case InvalidationKind::iotlb_domain:
        case InvalidationKind::iotlb_page:
            platform_.iotlb_changed(platform_.opaque, &scope);
            break;
        case InvalidationKind::device_tlb:
            platform_.device_tlb_changed(platform_.opaque, scope.source, scope.first, scope.last);
            break;
        case InvalidationKind::interrupt_global:
        case InvalidationKind::interrupt_index:
            interrupt_entries_changed_ = true;
            break;
    }
}

void InvalidationFanOut::translation_changed(bool enabled) {
    shadow_.translation_changed(enabled);
    platform_.translation_changed(platform_.opaque);
}

void InvalidationFanOut::interrupt_remapping_changed(bool /*enabled*/) {
    platform_.interrupt_remapping_changed(platform_.opaque);
}

void InvalidationFanOut::barrier() {
    shadow_.barrier();
    if (interrupt_entries_changed_) {
        interrupt_entries_changed_ = false;
        platform_.interrupt_entries_changed(platform_.opaque);
    }
}

}  // namespace umbra::bridge
