// SPDX-License-Identifier: GPL-2.0-or-later
//
// How an invalidation is carried out: the Invalidator drops what the unit's caches hold of it,
// tells the observer, and counts. The queue decodes descriptors into invalidations, and the unit
// does the same with the CCMD and IOTLB registers.
#pragma once

#include "plugin/vtd/context_cache.h"
#include "plugin/vtd/counters.h"
#include "plugin/vtd/invalidation.h"
#include "plugin/vtd/iotlb.h"
#include "plugin/vtd/ports.h"

namespace umbra::vtd {

// Threading: as InvalidationObserver; one thread at a time.
class Invalidator {
  public:
    // All outlive the object. `observer` may be null.
    Invalidator(ContextCache& contexts, Iotlb& iotlb, InvalidationObserver* observer,
                Counters& counters)
        : contexts_(contexts), iotlb_(iotlb), observer_(observer), counters_(counters) {}

    // When this returns, no cache of the unit holds what `invalidation` covers, and the observer
    // knows. Between batch_begin() and batch_end() only.
    void apply(const Invalidation& invalidation, InvalidationPath path);

    // Drops everything that was derived from the root table. Software has not asked for it as an
    // invalidation, so nothing is counted and the observer is not told.
    void drop_everything();

    // The observer's functions of the same names, if there is one.
    void batch_begin();
    void barrier();
    void batch_end();
    // Whether the guest may see completed what came before: the observer has caught up, and holds
    // nothing back.
    [[nodiscard]] bool complete() const {
        return observer_ == nullptr || (observer_->caught_up() && observer_->may_complete());
    }
    // Calls barrier() once, and returns complete().
    [[nodiscard]] bool settled();
    // The observer's function of the same name.
    [[nodiscard]] bool has_time() const { return observer_ == nullptr || observer_->has_time(); }
    // Calls barrier() until the observer has caught up.
    void settle();

  private:
    void drop(const Invalidation& invalidation);
    void count(const Invalidation& invalidation, InvalidationPath path);

    ContextCache& contexts_;
    Iotlb& iotlb_;
    InvalidationObserver* observer_;
    Counters& counters_;
};

}  // namespace umbra::vtd
