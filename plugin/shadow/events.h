// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the shadow tells the operator. Each kind of trouble is told once a guest domain, and again
// only after it had healed, or if it stops the machine again. Since the guest decides how often
// that is, and how many domains there are, a unit tells of each kind once a minute at most, unless
// it stops the machine; the counters tell every single one.
#pragma once

#include <cstdint>

#include "plugin/vtd/types.h"

namespace umbra::shadow {

enum class Trouble : std::uint8_t {
    map_failed,      // the host refused a map; it is retried, until then the device's DMA faults
    unmap_refused,   // the host refused an unmap; it is retried, until then DMA still gets through
    not_ram,         // the guest maps an address that is not RAM; not mapped
    mapping_budget,  // more leaf entries than max-mappings; what exceeds it is not mapped
    table_budget,    // more table pages than max-tables; what they hold is not mapped
    table_loop,      // a table is its own ancestor; that entry is not followed
};

struct Event {
    Trouble trouble = Trouble::map_failed;
    DomainId domain{};
    IovaRange range{};
    int error = 0;  // positive errno of the host call; 0 if none was made
    // How many of this kind, in any domain, were not told since the last one that was.
    std::uint64_t untold = 0;
    // For people, never null: the limit that was hit ("vfio_iommu_type1.dma_entry_limit") or the
    // cause, and what the operator can do about it.
    const char* limit = "";
    const char* remedy = "";
};

// Threading: as HostMapper. Implementations must not call back into the shadow.
class Events {
  public:
    virtual ~Events() = default;

    virtual void trouble(const Event& event) = 0;
    // Everything that was refused in this domain for this reason is in place now. Only of trouble
    // that was told.
    virtual void healed(DomainId domain, Trouble trouble) = 0;
    // The policy on-map-error=stop asks for the machine to be stopped: each time that maps begin to
    // fail in a domain, after trouble(event) if that is told.
    virtual void stop_machine(const Event& event) = 0;

  protected:
    Events() = default;
    Events(const Events&) = default;
    Events& operator=(const Events&) = default;
};

}  // namespace umbra::shadow
