// SPDX-License-Identifier: GPL-2.0-or-later
//
// Events: what the shadow tells the operator.
//
// A guest domain tells each kind of trouble once, and again only after the trouble had healed or if
// it stops the machine again. A guest can cause trouble as often and in as many domains as it
// likes. So a unit tells each kind once a minute at most, unless it stops the machine. Counters
// count every piece of trouble.
#pragma once

#include <cstdint>

#include "plugin/vtd/types.h"

namespace umbra::shadow {

enum class Trouble : std::uint8_t {
    map_failed,      // the host refused a map; the device's DMA faults until a retry succeeds
    unmap_refused,   // the host refused an unmap; DMA still gets through until a retry succeeds
    not_ram,         // the guest maps an address that is not RAM; the leaf is not mapped
    mapping_budget,  // more leaf entries than max-mappings; leaves above the budget are not mapped
    table_budget,    // more table pages than max-tables; leaves of the other tables are not mapped
    iova_hole,   // the guest maps IOVAs that the host cannot map; the rest of the leaf is mapped
    table_loop,  // a table is its own ancestor; the entry that leads to it is not followed
};

struct Event {
    Trouble trouble = Trouble::map_failed;
    DomainId domain{};
    IovaRange range{};
    int error = 0;  // positive errno of the host call, or 0 without a host call
    // How many events of this kind, in any domain, were held back since the last one told.
    std::uint64_t untold = 0;
    // Text for people, never null: the limit that was hit ("vfio_iommu_type1.dma_entry_limit") or
    // another cause, and what the operator can do about it.
    const char* limit = "";
    const char* remedy = "";
};

// Threading: as HostMapper. Implementations must not call back into the shadow.
class Events {
  public:
    virtual ~Events() = default;

    virtual void trouble(const Event& event) = 0;
    // Trouble of this kind is over in this domain. Called only for trouble that was told.
    virtual void healed(DomainId domain, Trouble trouble) = 0;
    // The policy on-map-error=stop asks for the machine to be stopped. Called each time that maps
    // begin to fail in a domain, after trouble(event), and again if they still fail when the
    // machine is to go on.
    virtual void stop_machine(const Event& event) = 0;

  protected:
    Events() = default;
    Events(const Events&) = default;
    Events& operator=(const Events&) = default;
};

}  // namespace umbra::shadow
