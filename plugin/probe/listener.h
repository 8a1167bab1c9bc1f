/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Listening to a DMA address space as VFIO does: a memory listener over the whole space, and IOMMU
 * notifiers for maps and unmaps on every IOMMU region in it. A new notifier asks for a replay of
 * what is mapped. Maps and unmaps are counted and, with `rules`, applied to a model of a VFIO
 * container.
 *
 * Every function is called with QEMU's big lock held.
 */
#ifndef UMBRA_PLUGIN_PROBE_LISTENER_H
#define UMBRA_PLUGIN_PROBE_LISTENER_H

#include "plugin/qemu/compat.h"

#include "plugin/probe/mapping_model.h"

struct UmbraProbeCounters {
    uint64_t maps;
    uint64_t unmaps;
    uint64_t mapped_bytes;
    uint64_t unmapped_bytes;
    uint64_t ram_maps;
    uint64_t ram_unmaps;
    uint64_t region_adds;
    uint64_t region_dels;
    uint64_t refused_overlap;
    uint64_t refused_bisect;
    uint64_t refused_limit;
    uint64_t refused_target;
    uint64_t empty_unmaps;
    uint64_t live_peak;
};

struct UmbraProbeRegion;

struct UmbraProbeListener {
    bool on;
    bool rules;       /* changed only while off */
    bool unmaps_only; /* as vhost; changed only while off */
    /* Where vIOMMUs look for the IOMMU notifiers of a VFIO device; NULL: the probe is none. Changed
     * only while off. */
    UmbraVfioContainer* container;
    bool refuse_maps; /* of the container, as when memory runs out */
    uint64_t entry_limit;
    struct UmbraProbeCounters counters;
    struct UmbraMappingModel* model; /* not NULL while on with rules */
    MemoryListener memory_listener;
    QLIST_HEAD(, UmbraProbeRegion) regions;
    Error* start_error; /* the first refusal while starting */
    bool starting;
};

void umbra_probe_listener_init(struct UmbraProbeListener* listener, uint64_t entry_limit);
void umbra_probe_listener_destroy(struct UmbraProbeListener* listener);

/* False, with an error and without listening, if an IOMMU refuses the notifier (caching mode off,
 * for example). */
bool umbra_probe_listener_start(struct UmbraProbeListener* listener, AddressSpace* space,
                                Error** errp);
/* Does nothing if the listener is off. */
void umbra_probe_listener_stop(struct UmbraProbeListener* listener);

/* A map or unmap of the container by the vIOMMU, counted as a notification is. Returns 0 or a
 * negative errno value, as type1v2 does. */
int umbra_probe_listener_map(struct UmbraProbeListener* listener,
                             const struct UmbraMapping* mapping);
int umbra_probe_listener_unmap(struct UmbraProbeListener* listener, uint64_t first, uint64_t last);

/* Zeroes the counters; the peak becomes the present number of mappings. */
void umbra_probe_listener_clear(struct UmbraProbeListener* listener);

/* 0 without rules. */
uint64_t umbra_probe_listener_live(const struct UmbraProbeListener* listener);
uint64_t umbra_probe_listener_live_bytes(const struct UmbraProbeListener* listener);
size_t umbra_probe_listener_read(const struct UmbraProbeListener* listener, uint64_t from,
                                 struct UmbraMapping* into, size_t room);

/* Sends `count` map notifications to the listener itself, and returns how many ns they took; 0, and
 * nothing sent, unless it listens to an IOMMU region without rules. */
uint64_t umbra_probe_listener_rehearse(struct UmbraProbeListener* listener, uint64_t count);

#endif /* UMBRA_PLUGIN_PROBE_LISTENER_H */
