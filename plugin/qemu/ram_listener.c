// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/ram_listener.h"

#include "qemu/bitmap.h"
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

/* Device memory that is mapped into QEMU (a passed-through BAR) is no place for tables: reads of it
 * can have effects, and real hardware would not find RAM there either. */
static bool is_guest_ram(const MemoryRegionSection* section) {
    return memory_region_is_ram(section->mr) && !memory_region_is_ram_device(section->mr);
}

/* A section of the memory map that is guest RAM. */
typedef struct RamSection {
    UmbraRamListener* ram;
    MemoryRegionSection section; /* holds a reference to its region */
    /* Only if blocks of the memory come and go (virtio-mem): the blocks that are there, from the
     * block on in which the section begins. The plugin must not touch the others: a block takes
     * host memory when it is touched. */
    unsigned long* populated;
    uint64_t block_size;
    uint64_t first_block; /* of the region */
    unsigned long blocks;
    RamDiscardListener listener;
} RamSection;

static uint64_t section_end(const MemoryRegionSection* section) {
    return section->offset_within_region + int128_get64(section->size);
}

static void add_range(GArray* ranges, const MemoryRegionSection* section, uint64_t first,
                      uint64_t end) {
    const UmbraRamRange range = {
        .address = section->offset_within_address_space + (first - section->offset_within_region),
        .size = end - first,
        .host = (uint8_t*)memory_region_get_ram_ptr(section->mr) + first,
        .writable = !section->readonly,
    };

    g_array_append_val(ranges, range);
}

/* Blocks that follow each other become one range: a host mapping may span them. */
static void add_populated_ranges(GArray* ranges, const RamSection* ram) {
    const MemoryRegionSection* section = &ram->section;
    unsigned long first = find_first_bit(ram->populated, ram->blocks);

    while (first < ram->blocks) {
        const unsigned long end = find_next_zero_bit(ram->populated, ram->blocks, first + 1);

        add_range(ranges, section,
                  MAX((ram->first_block + first) * ram->block_size, section->offset_within_region),
                  MIN((ram->first_block + end) * ram->block_size, section_end(section)));
        first = find_next_bit(ram->populated, ram->blocks, end);
    }
}

/* Puts the present sections in force. After the call, memory that went away is mapped for no
 * device. */
static void publish(UmbraRamListener* ram) {
    g_autoptr(GArray) ranges = g_array_new(false, false, sizeof(UmbraRamRange));
    GPtrArray* regions = g_ptr_array_new_full(ram->sections->len, region_release);
    RetiredMap* retired = g_new0(RetiredMap, 1);
    UmbraRamMap* map;

    for (guint i = 0; i < ram->sections->len; i++) {
        const RamSection* known = g_ptr_array_index(ram->sections, i);
        const MemoryRegionSection* section = &known->section;

        memory_region_ref(section->mr);
        g_ptr_array_add(regions, section->mr);
        if (known->populated != NULL) {
            add_populated_ranges(ranges, known);
        } else {
            add_range(ranges, section, section->offset_within_region, section_end(section));
        }
    }
    map = umbra_ram_map_new((const UmbraRamRange*)(void*)ranges->data, ranges->len);

    retired->map = umbra_unit_swap_ram_map(ram->unit, map);
    retired->regions = g_steal_pointer(&ram->regions_in_use);
    ram->regions_in_use = regions;
    call_rcu(retired, retired_map_free, rcu);
}

/* ---- Blocks that come and go ---- */

static void blocks_changed(RamDiscardListener* listener, const MemoryRegionSection* part,
                           bool populated) {
    RamSection* known = container_of(listener, RamSection, listener);
    const uint64_t first = part->offset_within_region / known->block_size;
    const uint64_t end = DIV_ROUND_UP(section_end(part), known->block_size);

    if (populated) {
        bitmap_set(known->populated, (long)(first - known->first_block), (long)(end - first));
    } else {
        bitmap_clear(known->populated, (long)(first - known->first_block), (long)(end - first));
    }
    /* While a section comes or goes, this is one of many changes, and listener_commit() follows. */
    if (!known->ram->section_changing) {
        publish(known->ram);
    }
}

/* A block is mapped for devices before the guest hears that the block is plugged. */
static int blocks_populated(RamDiscardListener* listener, MemoryRegionSection* part) {
    blocks_changed(listener, part, true);
    return 0;
}

static void blocks_discarded(RamDiscardListener* listener, MemoryRegionSection* part) {
    blocks_changed(listener, part, false);
}

static void follow_blocks(RamSection* known, MemoryRegionSection* section) {
    RamDiscardManager* manager = memory_region_get_ram_discard_manager(section->mr);

    known->block_size = ram_discard_manager_get_min_granularity(manager, section->mr);
    known->first_block = section->offset_within_region / known->block_size;
    known->blocks =
        (unsigned long)(DIV_ROUND_UP(section_end(section), known->block_size) - known->first_block);
    known->populated = bitmap_new((long)known->blocks);
    ram_discard_listener_init(&known->listener, blocks_populated, blocks_discarded, true);
    /* This call reports every block that is there. */
    ram_discard_manager_register_listener(manager, &known->listener, section);
}

static void section_free(RamSection* known) {
    if (known->populated != NULL) {
        ram_discard_manager_unregister_listener(
            memory_region_get_ram_discard_manager(known->section.mr), &known->listener);
        g_free(known->populated);
    }
    memory_region_unref(known->section.mr);
    g_free(known);
}

/* ---- Sections ---- */

static void listener_region_add(MemoryListener* listener, MemoryRegionSection* section) {
    UmbraRamListener* ram = container_of(listener, UmbraRamListener, listener);
    RamSection* known;

    if (!is_guest_ram(section)) {
        return;
    }
    known = g_new0(RamSection, 1);
    known->ram = ram;
    known->section = *section;
    memory_region_ref(section->mr);
    g_ptr_array_add(ram->sections, known);
    ram->section_changing = true;
    if (memory_region_has_ram_discard_manager(section->mr)) {
        follow_blocks(known, section);
    }
    ram->section_changing = false;
    ram->changed = true;
}

static void listener_region_del(MemoryListener* listener, MemoryRegionSection* section) {
    UmbraRamListener* ram = container_of(listener, UmbraRamListener, listener);

    for (guint i = 0; i < ram->sections->len; i++) {
        RamSection* known = g_ptr_array_index(ram->sections, i);

        if (known->section.mr == section->mr &&
            known->section.offset_within_address_space == section->offset_within_address_space) {
            ram->section_changing = true;
            g_ptr_array_remove_index_fast(ram->sections, i);
            section_free(known);
            ram->section_changing = false;
            ram->changed = true;
            return;
        }
    }
}

static void listener_commit(MemoryListener* listener) {
    UmbraRamListener* ram = container_of(listener, UmbraRamListener, listener);

    if (ram->changed) {
        ram->changed = false;
        publish(ram);
    }
}

void umbra_ram_listener_start(UmbraRamListener* ram, UmbraUnit* unit) {
    ram->unit = unit;
    ram->sections = g_ptr_array_new();
    ram->listener = (MemoryListener){
        .name = "umbra-ram",
        .region_add = listener_region_add,
        .region_del = listener_region_del,
        .commit = listener_commit,
    };
    memory_listener_register(&ram->listener, &address_space_memory);
}
