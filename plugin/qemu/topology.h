// SPDX-License-Identifier: GPL-2.0-or-later
//
// The PCI topology around the unit: which address space each function of each bus has, and what
// happens to it when a bridge is plugged, numbered anew or unplugged.
//
// Spaces are found by bus and not by bus number. The guest assigns the number after the space was
// made, and may assign it anew: then the functions on the bus have other source-ids, hence other
// context entries, and no invalidation says so.
//
// Functions need the big lock.
#ifndef UMBRA_QEMU_TOPOLOGY_H
#define UMBRA_QEMU_TOPOLOGY_H

#include "plugin/qemu/compat.h"

#include "hw/qdev-core.h"
#include "plugin/bridge/platform.h"
#include "plugin/qemu/device_space.h"

typedef struct UmbraTopology {
    Object* owner;
    UmbraSpaceContext context;
    GHashTable* spaces; /* SpaceKey (topology.c), owned, to UmbraDeviceSpace */
    UmbraDeviceSpace* ioapic_space;
    DeviceListener device_listener;
} UmbraTopology;

/* The source-id under which the I/O APIC sends its messages. */
uint16_t umbra_topology_ioapic_source(void);

/* From here on every device of the machine gets its address space from the topology. Spaces are
 * children of `owner`, which the topology is part of. There is one topology a machine. */
void umbra_topology_start(UmbraTopology* topology, Object* owner, UmbraUnit* unit,
                          const UmbraUnitProperties* properties);

/* Gives every space the view that the guest's tables ask for now. */
void umbra_topology_update(UmbraTopology* topology);

/* The work of UmbraPlatform's functions of the same names: tells the spaces that are concerned. */
void umbra_topology_contexts_changed(UmbraTopology* topology, const UmbraScope* scope);
void umbra_topology_iotlb_changed(UmbraTopology* topology, const UmbraScope* scope);
void umbra_topology_device_tlb_changed(UmbraTopology* topology, uint16_t source, uint64_t first,
                                       uint64_t last);

#endif
