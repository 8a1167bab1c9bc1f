/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The PCI function: its registers, MSIs and properties. DMA, the doorbell and listening have files
 * of their own.
 *
 * Everything here runs with QEMU's big lock held. Work that a guest can ask for in one register
 * write is bounded: 64 MiB of DMA, or 10 s of doorbell writes.
 */
#include "plugin/qemu/compat.h"

#include "plugin/probe/container.h"
#include "plugin/probe/dma.h"
#include "plugin/probe/doorbell.h"
#include "plugin/probe/listener.h"
#include "plugin/probe/probe.h"
#include "plugin/probe/registers.h"

#include "hw/pci/msi.h"
#include "hw/pci/pci_device.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "qemu/units.h"

#define REHEARSE_COUNT_MAX 65536

/* VFIO type1's dma_entry_limit default, and the most that a probe may be told to keep. */
#define ENTRY_LIMIT_DEFAULT 65535
#define ENTRY_LIMIT_MAX (4 * MiB)

OBJECT_DECLARE_SIMPLE_TYPE(UmbraProbe, UMBRA_PROBE)

struct UmbraProbe {
    PCIDevice parent_obj;

    MemoryRegion bar;
    uint8_t window[UMBRA_PROBE_WINDOW_SIZE];

    struct UmbraProbeDma dma;
    struct UmbraProbeDoorbell doorbell;

    struct UmbraProbeListener listener;
    struct UmbraProbeContainer* container; /* NULL: none is offered to the vIOMMU */
    uint64_t live_read_count;
    uint64_t rehearse_ns;

    bool listen_property;
    bool rules_property;
    bool unmaps_only_property;
    bool container_property;
    struct UmbraProbeHost host_property;
    uint32_t entry_limit_property;
};

static void trigger_msi(UmbraProbe* probe, uint64_t vector) {
    PCIDevice* pci = PCI_DEVICE(probe);

    if (msi_enabled(pci) && vector < msi_nr_vectors_allocated(pci)) {
        msi_notify(pci, (unsigned int)vector);
    }
}

static void read_live(UmbraProbe* probe, uint64_t from) {
    struct UmbraMapping mappings[UMBRA_PROBE_WINDOW_SIZE / sizeof(struct UmbraProbeMapping)];
    const size_t count =
        umbra_probe_listener_read(&probe->listener, from, mappings, ARRAY_SIZE(mappings));

    for (size_t i = 0; i < count; i++) {
        uint8_t* record = probe->window + i * sizeof(struct UmbraProbeMapping);

        stq_le_p(record + offsetof(struct UmbraProbeMapping, iova), mappings[i].first);
        stq_le_p(record + offsetof(struct UmbraProbeMapping, last), mappings[i].last);
        stq_le_p(record + offsetof(struct UmbraProbeMapping, target), mappings[i].target);
        stq_le_p(record + offsetof(struct UmbraProbeMapping, flags), mappings[i].flags);
    }
    probe->live_read_count = count;
}

static AddressSpace* listened_space(UmbraProbe* probe) {
    return pci_device_iommu_address_space(PCI_DEVICE(probe));
}

static void set_listen(UmbraProbe* probe, uint64_t bits) {
    struct UmbraProbeListener* listener = &probe->listener;
    const bool on = bits & UMBRA_PROBE_LISTEN_ON;
    Error* error = NULL;

    /* A probe with a container listens as long as it is there. */
    if (probe->container != NULL) {
        return;
    }
    if (on == listener->on) {
        if (!on) {
            listener->rules = bits & UMBRA_PROBE_LISTEN_RULES;
        }
        return;
    }
    if (!on) {
        umbra_probe_listener_stop(listener);
        listener->rules = bits & UMBRA_PROBE_LISTEN_RULES;
        return;
    }
    listener->rules = bits & UMBRA_PROBE_LISTEN_RULES;
    if (!umbra_probe_listener_start(listener, listened_space(probe), &error)) {
        warn_report_err(error);
    }
}

static uint64_t read_register(UmbraProbe* probe, hwaddr offset) {
    const struct UmbraProbeListener* listener = &probe->listener;

    switch (offset) {
        case UMBRA_PROBE_ID:
            return UMBRA_PROBE_ID_VALUE;
        case UMBRA_PROBE_VERSION:
            return UMBRA_PROBE_VERSION_VALUE;
        case UMBRA_PROBE_DMA_IOVA:
            return probe->dma.iova;
        case UMBRA_PROBE_DMA_LENGTH:
            return probe->dma.length;
        case UMBRA_PROBE_DMA_PATTERN:
            return probe->dma.pattern;
        case UMBRA_PROBE_DMA_STATUS:
            return probe->dma.status;
        case UMBRA_PROBE_DMA_DONE:
            return probe->dma.done;
        case UMBRA_PROBE_LISTEN:
            return (listener->on ? UMBRA_PROBE_LISTEN_ON : 0) |
                   (listener->rules ? UMBRA_PROBE_LISTEN_RULES : 0);
        case UMBRA_PROBE_LISTEN_MAPS:
            return listener->counters.maps;
        case UMBRA_PROBE_LISTEN_UNMAPS:
            return listener->counters.unmaps;
        case UMBRA_PROBE_LISTEN_MAPPED_BYTES:
            return listener->counters.mapped_bytes;
        case UMBRA_PROBE_LISTEN_UNMAPPED_BYTES:
            return listener->counters.unmapped_bytes;
        case UMBRA_PROBE_LISTEN_RAM_MAPS:
            return listener->counters.ram_maps;
        case UMBRA_PROBE_LISTEN_RAM_UNMAPS:
            return listener->counters.ram_unmaps;
        case UMBRA_PROBE_LISTEN_REGION_ADDS:
            return listener->counters.region_adds;
        case UMBRA_PROBE_LISTEN_REGION_DELS:
            return listener->counters.region_dels;
        case UMBRA_PROBE_REFUSED_OVERLAP:
            return listener->counters.refused_overlap;
        case UMBRA_PROBE_REFUSED_BISECT:
            return listener->counters.refused_bisect;
        case UMBRA_PROBE_REFUSED_LIMIT:
            return listener->counters.refused_limit;
        case UMBRA_PROBE_REFUSED_TARGET:
            return listener->counters.refused_target;
        case UMBRA_PROBE_EMPTY_UNMAPS:
            return listener->counters.empty_unmaps;
        case UMBRA_PROBE_LIVE_MAPPINGS:
            return umbra_probe_listener_live(listener);
        case UMBRA_PROBE_LIVE_BYTES:
            return umbra_probe_listener_live_bytes(listener);
        case UMBRA_PROBE_LIVE_PEAK:
            return listener->counters.live_peak;
        case UMBRA_PROBE_LIVE_READ_COUNT:
            return probe->live_read_count;
        case UMBRA_PROBE_REHEARSE_NS:
            return probe->rehearse_ns;
        case UMBRA_PROBE_CLOCK:
            return (uint64_t)get_clock();
        case UMBRA_PROBE_DOORBELL_ADDRESS:
            return probe->doorbell.address;
        case UMBRA_PROBE_DOORBELL_WIDTH:
            return probe->doorbell.width;
        case UMBRA_PROBE_DOORBELL_VALUE:
            return probe->doorbell.value;
        case UMBRA_PROBE_DOORBELL_STEP:
            return probe->doorbell.step;
        case UMBRA_PROBE_DOORBELL_WRAP:
            return probe->doorbell.wrap;
        case UMBRA_PROBE_DOORBELL_DONE:
            return probe->doorbell.done;
        case UMBRA_PROBE_DOORBELL_FAILED:
            return probe->doorbell.failed;
        case UMBRA_PROBE_DOORBELL_NS:
            return probe->doorbell.ns;
        case UMBRA_PROBE_DOORBELL_NS_MIN:
            return probe->doorbell.ns_min;
        case UMBRA_PROBE_DOORBELL_NS_MAX:
            return probe->doorbell.ns_max;
        case UMBRA_PROBE_DOORBELL_START:
            return probe->doorbell.start;
        default:
            return 0;
    }
}

/* The storage of a register that keeps the written value; NULL for every other register. */
static uint64_t* plain_register(UmbraProbe* probe, hwaddr offset) {
    switch (offset) {
        case UMBRA_PROBE_DMA_IOVA:
            return &probe->dma.iova;
        case UMBRA_PROBE_DMA_LENGTH:
            return &probe->dma.length;
        case UMBRA_PROBE_DMA_PATTERN:
            return &probe->dma.pattern;
        case UMBRA_PROBE_DOORBELL_ADDRESS:
            return &probe->doorbell.address;
        case UMBRA_PROBE_DOORBELL_WIDTH:
            return &probe->doorbell.width;
        case UMBRA_PROBE_DOORBELL_VALUE:
            return &probe->doorbell.value;
        case UMBRA_PROBE_DOORBELL_STEP:
            return &probe->doorbell.step;
        case UMBRA_PROBE_DOORBELL_WRAP:
            return &probe->doorbell.wrap;
        default:
            return NULL;
    }
}

static void run_command(UmbraProbe* probe, hwaddr offset, uint64_t value) {
    switch (offset) {
        case UMBRA_PROBE_DMA_COMMAND:
            umbra_probe_dma_run(&probe->dma, PCI_DEVICE(probe), probe->window, value);
            break;
        case UMBRA_PROBE_MSI_TRIGGER:
            trigger_msi(probe, value);
            break;
        case UMBRA_PROBE_LISTEN:
            set_listen(probe, value);
            break;
        case UMBRA_PROBE_LISTEN_CLEAR:
            umbra_probe_listener_clear(&probe->listener);
            break;
        case UMBRA_PROBE_LIVE_READ:
            read_live(probe, value);
            break;
        case UMBRA_PROBE_REHEARSE:
            probe->rehearse_ns =
                umbra_probe_listener_rehearse(&probe->listener, MIN(value, REHEARSE_COUNT_MAX));
            break;
        case UMBRA_PROBE_DOORBELL_RING:
            umbra_probe_doorbell_ring(&probe->doorbell, probe->window, value);
            break;
        default:
            break;
    }
}

static uint64_t bar_read(void* opaque, hwaddr offset, unsigned size) {
    UmbraProbe* probe = opaque;
    uint64_t value;

    if (offset >= UMBRA_PROBE_WINDOW) {
        return ldn_le_p(probe->window + (offset - UMBRA_PROBE_WINDOW), (int)size);
    }
    value = read_register(probe, QEMU_ALIGN_DOWN(offset, 8));
    return size == 8 ? value : extract64(value, (int)(offset % 8) * 8, 32);
}

static void bar_write(void* opaque, hwaddr offset, uint64_t value, unsigned size) {
    UmbraProbe* probe = opaque;
    uint64_t* storage;

    if (offset >= UMBRA_PROBE_WINDOW) {
        stn_le_p(probe->window + (offset - UMBRA_PROBE_WINDOW), (int)size, value);
        return;
    }
    storage = plain_register(probe, QEMU_ALIGN_DOWN(offset, 8));
    if (storage) {
        *storage = size == 8 ? value : deposit64(*storage, (int)(offset % 8) * 8, 32, value);
    } else if (offset % 8 == 0) {
        run_command(probe, offset, value);
    }
}

static const MemoryRegionOps bar_ops = {
    .read = bar_read,
    .write = bar_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = {.min_access_size = 4, .max_access_size = 8},
    .impl = {.min_access_size = 4, .max_access_size = 8},
};

static void probe_reset(DeviceState* device) {
    UmbraProbe* probe = UMBRA_PROBE(device);

    memset(probe->window, 0, sizeof(probe->window));
    probe->dma.iova = 0;
    probe->dma.length = 0;
    probe->dma.pattern = 0;
    probe->dma.status = UMBRA_PROBE_DMA_STATUS_IDLE;
    probe->dma.done = 0;
    probe->doorbell.address = 0;
    probe->doorbell.width = 0;
    probe->doorbell.value = 0;
    probe->doorbell.step = 0;
    probe->doorbell.wrap = 0;
}

static void stop_listening(UmbraProbe* probe) {
    struct UmbraProbeListener* listener = &probe->listener;

    umbra_probe_listener_stop(listener);
    umbra_probe_container_free(probe->container);
    probe->container = NULL;
    umbra_probe_listener_destroy(listener);
}

static bool start_listening(UmbraProbe* probe, Error** errp) {
    struct UmbraProbeListener* listener = &probe->listener;

    umbra_probe_listener_init(listener, probe->entry_limit_property);
    listener->rules = probe->rules_property;
    listener->unmaps_only = probe->unmaps_only_property;
    if (!probe->listen_property) {
        return true;
    }
    if (probe->container_property) {
        probe->container = umbra_probe_container_new(listener, &probe->host_property, errp);
        if (probe->container == NULL) {
            return false;
        }
    }
    return umbra_probe_listener_start(listener, listened_space(probe), errp) &&
           (probe->container == NULL ||
            umbra_probe_container_attach(probe->container, PCI_DEVICE(probe), errp));
}

static void probe_realize(PCIDevice* pci, Error** errp) {
    UmbraProbe* probe = UMBRA_PROBE(pci);

    if (probe->container_property &&
        (!probe->listen_property || !probe->rules_property || probe->unmaps_only_property)) {
        error_setg(errp, "container=on needs listen=on, vfio-rules=on and unmaps-only=off");
        return;
    }
    if (probe->entry_limit_property == 0 || probe->entry_limit_property > ENTRY_LIMIT_MAX) {
        error_setg(errp, "dma-entry-limit must be 1 to %" PRIu64 ", not %" PRIu32,
                   (uint64_t)ENTRY_LIMIT_MAX, probe->entry_limit_property);
        return;
    }
    if (!umbra_probe_host_exists(&probe->host_property)) {
        error_setg(errp, "host-aw-bits must be 1 to 64, and a hole must lie within that width");
        return;
    }
    if (msi_init(pci, 0, UMBRA_PROBE_MSI_VECTORS, true, true, errp) != 0) {
        return;
    }
    memory_region_init_io(&probe->bar, OBJECT(probe), &bar_ops, probe, TYPE_UMBRA_PROBE,
                          UMBRA_PROBE_BAR_SIZE);
    pci_register_bar(pci, 0, PCI_BASE_ADDRESS_SPACE_MEMORY, &probe->bar);

    if (!start_listening(probe, errp)) {
        stop_listening(probe);
        msi_uninit(pci);
    }
}

static void probe_exit(PCIDevice* pci) {
    UmbraProbe* probe = UMBRA_PROBE(pci);

    if (probe->container != NULL) {
        umbra_probe_container_detach(probe->container, pci);
    }
    msi_uninit(pci);
}

/* Listening ends here and not in probe_exit(): VFIO too keeps its container, and the listener of
 * the container, until the instance is finalized. */
static void probe_instance_finalize(Object* object) {
    stop_listening(UMBRA_PROBE(object));
}

/* Counters and live mappings stay behind: on the destination, the maps of its own vIOMMU make them
 * anew. */
static const VMStateDescription probe_vmstate = {
    .name = TYPE_UMBRA_PROBE,
    .version_id = 1,
    .minimum_version_id = 1,
    .fields =
        (const VMStateField[]){
            VMSTATE_PCI_DEVICE(parent_obj, UmbraProbe), VMSTATE_BUFFER(window, UmbraProbe),
            VMSTATE_UINT64(dma.iova, UmbraProbe), VMSTATE_UINT64(dma.length, UmbraProbe),
            VMSTATE_UINT64(dma.pattern, UmbraProbe), VMSTATE_UINT64(dma.status, UmbraProbe),
            VMSTATE_UINT64(dma.done, UmbraProbe), VMSTATE_UINT64(doorbell.address, UmbraProbe),
            VMSTATE_UINT64(doorbell.width, UmbraProbe), VMSTATE_UINT64(doorbell.value, UmbraProbe),
            VMSTATE_UINT64(doorbell.step, UmbraProbe), VMSTATE_UINT64(doorbell.wrap, UmbraProbe),
            VMSTATE_END_OF_LIST()},
};

static const Property probe_properties[] = {
    DEFINE_PROP_BOOL("listen", UmbraProbe, listen_property, false),
    DEFINE_PROP_BOOL("vfio-rules", UmbraProbe, rules_property, true),
    DEFINE_PROP_BOOL("unmaps-only", UmbraProbe, unmaps_only_property, false),
    DEFINE_PROP_BOOL("container", UmbraProbe, container_property, false),
    DEFINE_PROP_UINT8("host-aw-bits", UmbraProbe, host_property.address_width,
                      HOST_IOMMU_DEVICE_CAP_AW_BITS_MAX),
    DEFINE_PROP_UINT64("host-hole", UmbraProbe, host_property.hole_first, 0),
    DEFINE_PROP_UINT64("host-hole-bytes", UmbraProbe, host_property.hole_bytes, 0),
    DEFINE_PROP_UINT32("dma-entry-limit", UmbraProbe, entry_limit_property, ENTRY_LIMIT_DEFAULT),
};

static bool get_refuse_maps(Object* object, Error** errp) {
    return UMBRA_PROBE(object)->listener.refuse_maps;
}

static void set_refuse_maps(Object* object, bool value, Error** errp) {
    UMBRA_PROBE(object)->listener.refuse_maps = value;
}

/* The counters as properties (qom-get, read-only), for those who have QMP and no driver. */
static void probe_instance_init(Object* object) {
    struct UmbraProbeCounters* counters = &UMBRA_PROBE(object)->listener.counters;
    const struct {
        const char* name;
        const uint64_t* value;
    } properties[] = {
        {"maps", &counters->maps},
        {"unmaps", &counters->unmaps},
        {"mapped-bytes", &counters->mapped_bytes},
        {"unmapped-bytes", &counters->unmapped_bytes},
        {"refused-overlap", &counters->refused_overlap},
        {"refused-bisect", &counters->refused_bisect},
        {"refused-limit", &counters->refused_limit},
        {"refused-target", &counters->refused_target},
        {"live-peak", &counters->live_peak},
    };

    for (size_t i = 0; i < ARRAY_SIZE(properties); i++) {
        object_property_add_uint64_ptr(object, properties[i].name, properties[i].value,
                                       OBJ_PROP_FLAG_READ);
    }
}

static void probe_class_init(ObjectClass* class, UmbraClassData* data) {
    DeviceClass* device = DEVICE_CLASS(class);
    PCIDeviceClass* pci = PCI_DEVICE_CLASS(class);

    pci->realize = probe_realize;
    pci->exit = probe_exit;
    pci->vendor_id = UMBRA_PROBE_VENDOR_ID;
    pci->device_id = UMBRA_PROBE_DEVICE_ID;
    pci->revision = 1;
    pci->class_id = PCI_CLASS_OTHERS;
    device->desc = "Umbra: DMA and vIOMMU probe for tests and benchmarks";
    device->vmsd = &probe_vmstate;
    set_bit(DEVICE_CATEGORY_MISC, device->categories);
    device_class_set_legacy_reset(device, probe_reset);
    device_class_set_props(device, probe_properties);
    object_class_property_set_description(class, "listen",
                                          "Listen to the vIOMMU's maps and unmaps as VFIO would");
    object_class_property_set_description(
        class, "vfio-rules",
        "While listening, keep the live mappings and apply VFIO type1v2's rules");
    object_class_property_set_description(
        class, "unmaps-only", "While listening, ask for unmaps and not for maps, as vhost does");
    object_class_property_set_description(
        class, "container",
        "While listening, offer the vIOMMU a VFIO container to fill; its mappings lead to offsets in the machine's RAM");
    object_class_property_set_description(
        class, "host-aw-bits", "Width of the IOVAs that the container's host takes, in bits");
    object_class_property_set_description(
        class, "host-hole",
        "First IOVA of host-hole-bytes that the container's host reserves, and that the vIOMMU is told of");
    object_class_property_set_description(
        class, "host-hole-bytes",
        "Size of the host's hole; every host refuses maps of the interrupt range besides");
    object_class_property_add_bool(class, "refuse-maps", get_refuse_maps, set_refuse_maps);
    object_class_property_set_description(
        class, "refuse-maps",
        "While true, the container refuses to map anything, for want of memory; can be changed at any time");
    object_class_property_set_description(
        class, "dma-entry-limit", "With vfio-rules, the most live mappings, as type1's parameter");
}

void umbra_probe_register_types(void) {
    static const InterfaceInfo interfaces[] = {{INTERFACE_CONVENTIONAL_PCI_DEVICE}, {}};
    static const TypeInfo probe_type = {
        .name = TYPE_UMBRA_PROBE,
        .parent = TYPE_PCI_DEVICE,
        .instance_size = sizeof(UmbraProbe),
        .instance_init = probe_instance_init,
        .instance_finalize = probe_instance_finalize,
        .class_init = probe_class_init,
        .interfaces = (InterfaceInfo*)interfaces,
    };

    type_register_static(&probe_type);
    umbra_probe_container_register_types();
}
