/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugin/qemu/compat.h"

#include "plugin/probe/listener.h"

#include "qapi/error.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"

/* An IOMMU region in the listened space, with the notifier that hangs on it. */
struct UmbraProbeRegion {
    QLIST_ENTRY(UmbraProbeRegion) next;
    struct UmbraProbeListener* listener;
    VFIOGuestIOMMU guest; /* in the list of the container, if there is one */
};

static int model_map(struct UmbraProbeListener* listener, const struct UmbraMapping* mapping) {
    struct UmbraProbeCounters* counters = &listener->counters;

    switch (umbra_mapping_model_map(listener->model, mapping)) {
        case UMBRA_MAPPING_OVERLAP:
            counters->refused_overlap++;
            return -EEXIST;
        case UMBRA_MAPPING_LIMIT:
            counters->refused_limit++;
            return -ENOSPC;
        default:
            counters->live_peak =
                MAX(counters->live_peak, umbra_mapping_model_count(listener->model));
            return 0;
    }
}

static int model_unmap(struct UmbraProbeListener* listener, uint64_t first, uint64_t last) {
    switch (umbra_mapping_model_unmap(listener->model, first, last)) {
        case UMBRA_MAPPING_BISECT:
            listener->counters.refused_bisect++;
            return -EINVAL;
        case UMBRA_MAPPING_EMPTY:
            listener->counters.empty_unmaps++;
            return 0;
        default:
            return 0;
    }
}

int umbra_probe_listener_map(struct UmbraProbeListener* listener,
                             const struct UmbraMapping* mapping) {
    listener->counters.maps++;
    listener->counters.mapped_bytes += mapping->last - mapping->first + 1;
    return listener->model ? model_map(listener, mapping) : 0;
}

int umbra_probe_listener_unmap(struct UmbraProbeListener* listener, uint64_t first, uint64_t last) {
    listener->counters.unmaps++;
    listener->counters.unmapped_bytes += last - first + 1;
    return listener->model ? model_unmap(listener, first, last) : 0;
}

static bool is_ram_in_one_piece(hwaddr address, hwaddr length, bool write) {
    hwaddr found = length;
    hwaddr offset;
    MemoryRegion* region;

    RCU_READ_LOCK_GUARD();
    region = address_space_translate(&address_space_memory, address, &offset, &found, write,
                                     MEMTXATTRS_UNSPECIFIED);
    return memory_region_is_ram(region) && found >= length;
}

static void notified(IOMMUNotifier* notifier, IOMMUTLBEntry* entry) {
    struct UmbraProbeRegion* region = container_of(notifier, struct UmbraProbeRegion, guest.n);
    struct UmbraProbeListener* listener = region->listener;
    struct UmbraProbeCounters* counters = &listener->counters;
    const uint64_t first = entry->iova + region->guest.iommu_offset;
    const uint64_t last = first + entry->addr_mask;

    if ((entry->perm & IOMMU_RW) == IOMMU_NONE) {
        umbra_probe_listener_unmap(listener, first, last);
        return;
    }
    counters->maps++;
    counters->mapped_bytes += entry->addr_mask + 1;
    if (listener->model) {
        const struct UmbraMapping mapping = {.first = first,
                                             .last = last,
                                             .target = entry->translated_addr,
                                             .flags = entry->perm & IOMMU_RW};

        if (!is_ram_in_one_piece(entry->translated_addr, entry->addr_mask + 1,
                                 entry->perm & IOMMU_WO)) {
            counters->refused_target++;
            return;
        }
        model_map(listener, &mapping);
    }
}

/* The sections that VFIO maps: RAM and IOMMU regions, except in the upper half of the space, where
 * BARs appear while they are being sized. */
static bool is_of_interest(const MemoryRegionSection* section) {
    return (memory_region_is_ram(section->mr) || memory_region_is_iommu(section->mr)) &&
           !memory_region_is_protected(section->mr) &&
           !(section->offset_within_address_space >> 63);
}

static void section_bounds(const MemoryRegionSection* section, uint64_t* first, uint64_t* last) {
    *first = section->offset_within_address_space;
    *last = *first + int128_get64(int128_sub(section->size, int128_one()));
}

static void add_iommu(struct UmbraProbeListener* listener, MemoryRegionSection* section) {
    struct UmbraProbeRegion* region = g_new0(struct UmbraProbeRegion, 1);
    const hwaddr length_minus_1 = int128_get64(int128_sub(section->size, int128_one()));
    Error* error = NULL;

    region->listener = listener;
    region->guest.iommu_mr = IOMMU_MEMORY_REGION(section->mr);
    region->guest.iommu_offset =
        section->offset_within_address_space - section->offset_within_region;
    iommu_notifier_init(
        &region->guest.n, notified,
        listener->unmaps_only ? IOMMU_NOTIFIER_UNMAP : IOMMU_NOTIFIER_IOTLB_EVENTS,
        section->offset_within_region, section->offset_within_region + length_minus_1,
        memory_region_iommu_attrs_to_index(region->guest.iommu_mr, MEMTXATTRS_UNSPECIFIED));
    if (memory_region_register_iommu_notifier(section->mr, &region->guest.n, &error) != 0) {
        g_free(region);
        if (listener->starting && !listener->start_error) {
            listener->start_error = error;
        } else {
            warn_report_err(error);
        }
        return;
    }
    memory_region_ref(section->mr);
    QLIST_INSERT_HEAD(&listener->regions, region, next);
    listener->counters.region_adds++;
    if (listener->container) {
        region->guest.bcontainer = listener->container;
        QLIST_INSERT_HEAD(&listener->container->giommu_list, &region->guest, giommu_next);
    }
    if (!listener->unmaps_only) {
        memory_region_iommu_replay(region->guest.iommu_mr, &region->guest.n);
    }
}

static void remove_region(struct UmbraProbeRegion* region) {
    MemoryRegion* memory = MEMORY_REGION(region->guest.iommu_mr);

    memory_region_unregister_iommu_notifier(memory, &region->guest.n);
    if (region->listener->container) {
        QLIST_REMOVE(&region->guest, giommu_next);
    }
    QLIST_REMOVE(region, next);
    g_free(region);
    memory_region_unref(memory);
}

static void region_add(MemoryListener* memory_listener, MemoryRegionSection* section) {
    struct UmbraProbeListener* listener =
        container_of(memory_listener, struct UmbraProbeListener, memory_listener);
    struct UmbraMapping mapping;

    if (!is_of_interest(section)) {
        return;
    }
    if (memory_region_is_iommu(section->mr)) {
        add_iommu(listener, section);
        return;
    }
    listener->counters.ram_maps++;
    if (listener->model) {
        section_bounds(section, &mapping.first, &mapping.last);
        /* RAM appears here without translation: IOVA and guest-physical address are the same. */
        mapping.target = mapping.first;
        mapping.flags = section->readonly ? IOMMU_RO : IOMMU_RW;
        model_map(listener, &mapping);
    }
}

static void region_del(MemoryListener* memory_listener, MemoryRegionSection* section) {
    struct UmbraProbeListener* listener =
        container_of(memory_listener, struct UmbraProbeListener, memory_listener);
    struct UmbraProbeRegion* region;
    uint64_t first;
    uint64_t last;

    if (!is_of_interest(section)) {
        return;
    }
    if (memory_region_is_iommu(section->mr)) {
        QLIST_FOREACH(region, &listener->regions, next) {
            if (MEMORY_REGION(region->guest.iommu_mr) == section->mr &&
                region->guest.n.start == section->offset_within_region) {
                remove_region(region);
                break;
            }
        }
        listener->counters.region_dels++;
    } else {
        listener->counters.ram_unmaps++;
    }
    if (listener->model) {
        section_bounds(section, &first, &last);
        model_unmap(listener, first, last);
    }
}

void umbra_probe_listener_init(struct UmbraProbeListener* listener, uint64_t entry_limit) {
    listener->entry_limit = entry_limit;
    listener->memory_listener = (MemoryListener){
        .name = "umbra-probe",
        .region_add = region_add,
        .region_del = region_del,
    };
    QLIST_INIT(&listener->regions);
}

void umbra_probe_listener_destroy(struct UmbraProbeListener* listener) {
    umbra_mapping_model_free(listener->model);
    listener->model = NULL;
}

bool umbra_probe_listener_start(struct UmbraProbeListener* listener, AddressSpace* space,
                                Error** errp) {
    if (listener->rules) {
        listener->model = umbra_mapping_model_new(listener->entry_limit);
    }
    listener->on = true;
    listener->starting = true;
    memory_listener_register(&listener->memory_listener, space);
    listener->starting = false;
    if (listener->start_error) {
        umbra_probe_listener_stop(listener);
        error_propagate(errp, listener->start_error);
        listener->start_error = NULL;
        return false;
    }
    return true;
}

void umbra_probe_listener_stop(struct UmbraProbeListener* listener) {
    if (!listener->on) {
        return;
    }
    /* Calls region_del for every section, which takes the notifiers off. */
    memory_listener_unregister(&listener->memory_listener);
    umbra_mapping_model_free(listener->model);
    listener->model = NULL;
    listener->on = false;
}

void umbra_probe_listener_clear(struct UmbraProbeListener* listener) {
    listener->counters = (struct UmbraProbeCounters){
        .live_peak = umbra_probe_listener_live(listener),
    };
}

uint64_t umbra_probe_listener_live(const struct UmbraProbeListener* listener) {
    return listener->model ? umbra_mapping_model_count(listener->model) : 0;
}

uint64_t umbra_probe_listener_live_bytes(const struct UmbraProbeListener* listener) {
    return listener->model ? umbra_mapping_model_bytes(listener->model) : 0;
}

size_t umbra_probe_listener_read(const struct UmbraProbeListener* listener, uint64_t from,
                                 struct UmbraMapping* into, size_t room) {
    return listener->model ? umbra_mapping_model_read(listener->model, from, into, room) : 0;
}

uint64_t umbra_probe_listener_rehearse(struct UmbraProbeListener* listener, uint64_t count) {
    struct UmbraProbeRegion* region = QLIST_FIRST(&listener->regions);
    const hwaddr page = 4096;
    hwaddr pages;
    int64_t start;

    if (!region || listener->model || count == 0) {
        return 0;
    }
    pages = MAX(1, (region->guest.n.end - region->guest.n.start) / page);
    start = get_clock();
    for (uint64_t i = 0; i < count; i++) {
        const IOMMUTLBEvent event = {.type = IOMMU_NOTIFIER_MAP,
                                     .entry = {.target_as = &address_space_memory,
                                               .iova = region->guest.n.start + i % pages * page,
                                               .translated_addr = i * page,
                                               .addr_mask = page - 1,
                                               .perm = IOMMU_RW}};

        memory_region_notify_iommu_one(&region->guest.n, &event);
    }
    return (uint64_t)(get_clock() - start);
}
