// SPDX-License-Identifier: GPL-2.0-or-later
//
// Invalidations as such, whichever way software asked for them: what one covers, and how it is
// carried out. The queue decodes descriptors into requests, the unit does the same with the CCMD
// and IOTLB registers, and the Invalidator applies requests to the caches, tells the observer, and
// counts.
#pragma once

#include <cstdint>

#include "plugin/vtd/context_cache.h"
#include "plugin/vtd/counters.h"
#include "plugin/vtd/iotlb.h"
#include "plugin/vtd/ports.h"
#include "plugin/vtd/types.h"

namespace umbra::vtd {

// `kind` says which of the other members mean something.
struct InvalidationRequest {
    InvalidationKind kind = InvalidationKind::context_global;
    DomainId domain{};              // context_domain, context_device, iotlb_domain, iotlb_page
    SourceId source;                // context_device, device_tlb
    unsigned function_mask = 0;     // context_device: FM, 0 to 3
    Iova address;                   // iotlb_page: aligned to 2^address_mask pages
    unsigned address_mask = 0;      // iotlb_page: AM, 0 to kMaximumAddressMask
    bool leaf_only = false;         // iotlb_page: IH
    IovaRange range{};              // device_tlb
    std::uint16_t first_index = 0;  // interrupt_index: aligned to 2^index_mask entries
    unsigned index_mask = 0;        // interrupt_index: IM, 0 to kMaximumHandleMask
};

// Threading: as InvalidationObserver; one thread at a time.
class Invalidator {
  public:
    // All outlive the object. `observer` may be null.
    Invalidator(ContextCache& contexts, Iotlb& iotlb, InvalidationObserver* observer,
                Counters& counters)
        : contexts_(contexts), iotlb_(iotlb), observer_(observer), counters_(counters) {}

    // When this returns, no cache of the unit holds what `request` covers, and the observer knows.
    // Between batch_begin() and batch_end() only.
    void apply(const InvalidationRequest& request, InvalidationPath path);

    // Drops everything that was derived from the root table. No request of software's, so nothing
    // is counted and the observer is not told.
    void drop_everything();

    // The observer's functions of the same names, if there is one.
    void batch_begin();
    void barrier();
    void batch_end();
    // barrier(), once: whether the observer has caught up then.
    [[nodiscard]] bool settled();
    // The observer's function of the same name.
    [[nodiscard]] bool has_time() const { return observer_ == nullptr || observer_->has_time(); }
    // barrier() until the observer has caught up.
    void settle();

  private:
    void drop(const InvalidationRequest& request);
    void tell(InvalidationObserver& observer, const InvalidationRequest& request);
    void count(const InvalidationRequest& request, InvalidationPath path);

    ContextCache& contexts_;
    Iotlb& iotlb_;
    InvalidationObserver* observer_;
    Counters& counters_;
};

}  // namespace umbra::vtd
