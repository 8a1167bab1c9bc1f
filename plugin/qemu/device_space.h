// SPDX-License-Identifier: GPL-2.0-or-later
//
// A device's view of memory: the address space in which its DMA happens.
//
//   root
//    +-- window      0xfee00000, 1 MiB: writes are interrupts, remapped under the device's
//    |               source-id. On while the unit remaps interrupts or translates the device.
//    +-- translated  IOMMU region: every access asks the unit. On while the unit translates.
//    +-- identity    all of guest memory as it is. On otherwise: translation is off, or the
//                    device's context entry says pass-through.
//
// Identity is a region of its own, not a translation, for two reasons: DMA takes no detour, and a
// listener that maps memory into a host IOMMU (VFIO) sees plain RAM to map. It is an alias to one
// region for all devices, so that QEMU can share one flat view among them.
//
// There is one space for each (bus, function) that a device asked for. It stays until the bus goes.
// The guest assigns the bus *number*: the source-id is made anew for every access, and the view is
// chosen anew when the number has changed.
//
// Functions need the big lock, except where DMA comes in.
#ifndef UMBRA_QEMU_DEVICE_SPACE_H
#define UMBRA_QEMU_DEVICE_SPACE_H

#include "plugin/bridge/requests.h"
#include "plugin/bridge/shadow.h"
#include "plugin/bridge/unit.h"
#include "plugin/qemu/compat.h"

#include "hw/pci/pci_bus.h"
#include "qemu/rcu.h"

#define TYPE_UMBRA_DEVICE_SPACE "umbra-device-space"
#define TYPE_UMBRA_TRANSLATED_REGION "umbra-translated-region" /* translated_region.h */
OBJECT_DECLARE_SIMPLE_TYPE(UmbraDeviceSpace, UMBRA_DEVICE_SPACE)

/* Where writes are interrupts (specification 3.14). */
#define UMBRA_INTERRUPT_WINDOW_BASE 0xfee00000ULL
#define UMBRA_INTERRUPT_WINDOW_SIZE 0x00100000ULL

typedef enum UmbraView {
    UMBRA_VIEW_IDENTITY,
    UMBRA_VIEW_TRANSLATED,
} UmbraView;

/* Which of the listeners that are served by notifiers (notifier_mapper.h) hear of a map or an
 * unmap. Transitions:
 *
 *   STEADY -> CHANGING -> STEADY                 a listener came or went
 *   STEADY -> SETTLING -> REPLAYING -> STEADY    a listener asks for what is mapped
 *   any state -> SWITCHING -> the same state     the shadow switches the view of the space
 */
typedef enum UmbraListening {
    /* All of them hear of both. */
    UMBRA_LISTENING_STEADY,
    /* None hears of maps: a listener that came asks for a replay next. All hear of unmaps. */
    UMBRA_LISTENING_CHANGING,
    /* All but the newcomer hear of maps: the replay tells the newcomer of all. All hear of unmaps.
     */
    UMBRA_LISTENING_SETTLING,
    /* Only the newcomer hears of either. */
    UMBRA_LISTENING_REPLAYING,
    /* Nothing is mapped or unmapped, and the shadow must not be called. */
    UMBRA_LISTENING_SWITCHING,
} UmbraListening;

/* Common to all spaces of a unit. */
typedef struct UmbraSpaceContext {
    UmbraUnit* unit;
    unsigned address_width; /* of IOVAs, in bits */
    /* aw-bits=auto, and the guest has not seen the unit: a narrower host makes the unit narrower.
     */
    bool address_width_open;
    bool caching_mode;
    bool device_iotlb;
    unsigned unmap_listeners; /* spaces that may have one (unmap_listeners.h) */
    /* All of guest memory, and the interrupt window for devices that need no source-id. */
    MemoryRegion identity;
    MemoryRegion identity_memory;
    MemoryRegion identity_window;
} UmbraSpaceContext;

struct UmbraDeviceSpace {
    Object parent;

    UmbraSpaceContext* context;
    PCIBus* bus; /* NULL: the I/O APIC, which is on no bus and is never translated */
    uint8_t devfn;
    /* Where the guest's number of `bus` stands: configuration space of its bridge, or
     * fixed_bus_number for a root bus and for one whose bridge is gone. */
    const uint8_t* bus_number;
    uint8_t fixed_bus_number; /* as of the last update */

    AddressSpace address_space;
    MemoryRegion root;
    MemoryRegion identity;
    IOMMUMemoryRegion translated;
    MemoryRegion window;
    UmbraView view;
    /* The device's context as of the last update: what is cached counts, not what the guest has
     * written since without an invalidation. */
    UmbraContext cached_context;
    IOMMUNotifierFlag notifier_flags;
    bool may_hear_unmaps_only; /* counted in the context's unmap_listeners */

    /* The shadow's mappings for the device, and their destinations. */
    GSList* containers;        /* VFIO's, as UmbraVfioMapper (vfio_container.c) */
    UmbraShadowDevice* shadow; /* by notifiers; NULL: no listener wants maps in this way */
    UmbraDmaMode shadow_mode;  /* with containers: decides the view */
    UmbraListening listening;
    IOMMUNotifier* newcomer; /* while SETTLING or REPLAYING; else NULL */

    struct rcu_head rcu;
};

void umbra_device_space_register_types(void);

/* Sets up what spaces share; `owner` owns the regions. */
void umbra_space_context_init(UmbraSpaceContext* context, Object* owner, UmbraUnit* unit,
                              const UmbraUnitProperties* properties);

/* The new space is a child of `owner`, which `context` is part of. */
UmbraDeviceSpace* umbra_device_space_new(Object* owner, UmbraSpaceContext* context, PCIBus* bus,
                                         uint8_t devfn);
/* A space for the platform's own messages, from the fixed `source`. */
UmbraDeviceSpace* umbra_platform_space_new(Object* owner, UmbraSpaceContext* context,
                                           uint16_t source);
/* The bridge of the bus is about to go, and its configuration space with it: the bus number stays
 * as it was last. */
void umbra_device_space_keep_number(UmbraDeviceSpace* space);
/* Takes the space apart. No device uses it any more, no container is attached, and its number is
 * kept. The space is freed after a grace period. */
void umbra_device_space_delete(UmbraDeviceSpace* space);

/* The requester id under which the device is on the bus now. Any thread. */
uint16_t umbra_device_space_source(const UmbraDeviceSpace* space);

/* True if the device has another requester id than when its view was chosen. */
static inline bool umbra_device_space_renumbered(const UmbraDeviceSpace* space) {
    return qatomic_read(space->bus_number) != space->fixed_bus_number;
}

/* Chooses the view that the guest's tables ask for now. */
void umbra_device_space_update(UmbraDeviceSpace* space);

#endif
