// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/invalidation.h"

namespace umbra::vtd {

void Invalidator::apply(const InvalidationRequest& request, InvalidationPath path) {
    drop(request);
    if (observer_ != nullptr) {
        tell(*observer_, request);
    }
    count(request, path);
}

void Invalidator::drop_everything() {
    contexts_.invalidate_all();
    iotlb_.invalidate_all();
}

void Invalidator::drop(const InvalidationRequest& request) {
    switch (request.kind) {
        case InvalidationKind::context_global:
            contexts_.invalidate_all();
            break;
        case InvalidationKind::context_domain:
            contexts_.invalidate_domain(request.domain);
            break;
        case InvalidationKind::context_device:
            contexts_.invalidate_device(request.source, request.function_mask);
            break;
        case InvalidationKind::iotlb_global:
            iotlb_.invalidate_all();
            break;
        case InvalidationKind::iotlb_domain:
            iotlb_.invalidate_domain(request.domain);
            break;
        case InvalidationKind::iotlb_page:
            iotlb_.invalidate_pages(request.domain, request.address, request.address_mask);
            break;
        case InvalidationKind::device_tlb:
        case InvalidationKind::interrupt_global:
        case InvalidationKind::interrupt_index:
            // The unit itself caches neither translations for devices nor interrupt entries.
            break;
    }
}

void Invalidator::tell(InvalidationObserver& observer, const InvalidationRequest& request) {
    switch (request.kind) {
        case InvalidationKind::context_global:
            observer.context_global();
            break;
        case InvalidationKind::context_domain:
            observer.context_domain(request.domain);
            break;
        case InvalidationKind::context_device:
            observer.context_device(request.domain, request.source, request.function_mask);
            break;
        case InvalidationKind::iotlb_global:
            observer.iotlb_global();
            break;
        case InvalidationKind::iotlb_domain:
            observer.iotlb_domain(request.domain);
            break;
        case InvalidationKind::iotlb_page:
            observer.iotlb_pages(request.domain, request.address, request.address_mask,
                                 request.leaf_only);
            break;
        case InvalidationKind::device_tlb:
            observer.device_tlb(request.source, request.range);
            break;
        case InvalidationKind::interrupt_global:
            observer.interrupt_entries_global();
            break;
        case InvalidationKind::interrupt_index:
            observer.interrupt_entries(request.first_index, request.index_mask);
            break;
    }
}

void Invalidator::count(const InvalidationRequest& request, InvalidationPath path) {
    counters_.invalidation(request.kind, path).add();
    if (request.kind == InvalidationKind::iotlb_domain) {
        counters_.domains.at(request.domain).domain_invalidations.add();
    } else if (request.kind == InvalidationKind::iotlb_page) {
        DomainCounters& domain = counters_.domains.at(request.domain);
        domain.page_invalidations.add();
        domain.pages_invalidated.add(std::uint64_t{1} << request.address_mask);
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
    return observer_ == nullptr || observer_->caught_up();
}

void Invalidator::settle() {
    while (!settled()) {
    }
}

void Invalidator::batch_end() {
    if (observer_ != nullptr) {
        observer_->batch_end();
    }
}

}  // namespace umbra::vtd
