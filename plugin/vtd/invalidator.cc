// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/invalidator.h"

namespace umbra::vtd {

void Invalidator::apply(const Invalidation& invalidation, InvalidationPath path) {
    drop(invalidation);
    if (observer_ != nullptr) {
        observer_->invalidated(invalidation);
    }
    count(invalidation, path);
}

void Invalidator::drop_everything() {
    contexts_.invalidate_all();
    iotlb_.invalidate_all();
}

void Invalidator::drop(const Invalidation& invalidation) {
    switch (invalidation.kind) {
        case InvalidationKind::context_global:
            contexts_.invalidate_all();
            break;
        case InvalidationKind::context_domain:
            contexts_.invalidate_domain(invalidation.domain);
            break;
        case InvalidationKind::context_device:
            contexts_.invalidate_devices(invalidation.devices);
            break;
        case InvalidationKind::iotlb_global:
            iotlb_.invalidate_all();
            break;
        case InvalidationKind::iotlb_domain:
            iotlb_.invalidate_domain(invalidation.domain);
            break;
        case InvalidationKind::iotlb_page:
            iotlb_.invalidate_pages(invalidation.domain, invalidation.range);
            break;
        case InvalidationKind::device_tlb:
        case InvalidationKind::interrupt_global:
        case InvalidationKind::interrupt_index:
            // The unit itself caches neither translations for devices nor interrupt entries.
            break;
    }
}

void Invalidator::count(const Invalidation& invalidation, InvalidationPath path) {
    counters_.invalidation(invalidation.kind, path).add();
    if (invalidation.kind == InvalidationKind::iotlb_domain) {
        counters_.domains.at(invalidation.domain).domain_invalidations.add();
    } else if (invalidation.kind == InvalidationKind::iotlb_page) {
        DomainCounters& domain = counters_.domains.at(invalidation.domain);
        domain.page_invalidations.add();
        domain.pages_invalidated.add(invalidation.range.extent() / kPageSize + 1);
    }
}

void Invalidator::batch_begin() {
    if (observer_ != nullptr) {
        observer_->batch_begin();
    }
}

void Invalidator::barrier() {
    if (observer_ != nullptr) {
        observer_->barrier();
    }
}

bool Invalidator::settled() {
    barrier();
    return complete();
}

void Invalidator::settle() {
    do {
        barrier();
    } while (observer_ != nullptr && !observer_->caught_up());
}

void Invalidator::batch_end() {
    if (observer_ != nullptr) {
        observer_->batch_end();
    }
}

}  // namespace umbra::vtd
