// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/ram_listener.h"

#include "qemu/rcu.h"

typedef struct RetiredMap {
    struct rcu_head rcu;
    UmbraRamMap* map;
    GPtrArray* regions;
} RetiredMap;

static void region_release(gpointer region) {
    memory_region_unref(region);
}

static void retired_map_free(RetiredMap* retired) {
    umbra_ram_map_free(retired->map);
    if (retired->regions != NULL) {
        g_ptr_array_unref(retired->regions);
    }
    g_free(retired);
}

/* Device memory that happens to be mapped (a passed-through BAR) is no place for tables: reads of
 * it can have effects, and real hardware would not find RAM there either. */
static bool is_guest_ram(const MemoryRegionSection* section) {
    return memory_region_is_ram(section->mr) && !memory_region_is_ram_device(section->mr);
}

static void listener_region_add(MemoryListener* listener, MemoryRegionSection* section) {
    UmbraRamListener* ram = container_of(listener, UmbraRamListener, listener);

    if (is_guest_ram(section)) {
        memory_region_ref(section->mr);
        g_array_append_val(ram->sections, *section);
        ram->changed = true;
    }
}

static void listener_region_del(MemoryListener* listener, MemoryRegionSection* section) {
    UmbraRamListener* ram = container_of(listener, UmbraRamListener, listener);

    for (guint i = 0; i < ram->sections->len; i++) {
        const MemoryRegionSection* known = &g_array_index(ram->sections, MemoryRegionSection, i);

        if (known->mr == section->mr &&
            known->offset_within_address_space == section->offset_within_address_space) {
            memory_region_unref(known->mr);
            g_array_remove_index_fast(ram->sections, i);
            ram->changed = true;
            return;
        }
    }
}

static void listener_commit(MemoryListener* listener) {
    UmbraRamListener* ram = container_of(listener, UmbraRamListener, listener);
    g_autofree UmbraRamRange* ranges = NULL;
    GPtrArray* regions;
    UmbraRamMap* map;
    RetiredMap* retired;

    if (!ram->changed) {
        return;
    }
    ram->changed = false;

    ranges = g_new0(UmbraRamRange, ram->sections->len);
    regions = g_ptr_array_new_full(ram->sections->len, region_release);
    for (guint i = 0; i < ram->sections->len; i++) {
        MemoryRegionSection* section = &g_array_index(ram->sections, MemoryRegionSection, i);

        memory_region_ref(section->mr);
        g_ptr_array_add(regions, section->mr);
        ranges[i] = (UmbraRamRange){
            .address = section->offset_within_address_space,
            .size = int128_get64(section->size),
            .host =
                (uint8_t*)memory_region_get_ram_ptr(section->mr) + section->offset_within_region,
            .writable = !section->readonly,
        };
    }
    map = umbra_ram_map_new(ranges, ram->sections->len);

    retired = g_new0(RetiredMap, 1);
    retired->map = umbra_unit_swap_ram_map(ram->unit, map);
    retired->regions = g_steal_pointer(&ram->regions_in_use);
    ram->regions_in_use = regions;
    call_rcu(retired, retired_map_free, rcu);
}

void umbra_ram_listener_start(UmbraRamListener* ram, UmbraUnit* unit) {
    ram->unit = unit;
    ram->sections = g_array_new(false, false, sizeof(MemoryRegionSection));
    ram->listener = (MemoryListener){
        .name = "umbra-ram",
        .region_add = listener_region_add,
        .region_del = listener_region_del,
        .commit = listener_commit,
    };
    memory_listener_register(&ram->listener, &address_space_memory);
}
