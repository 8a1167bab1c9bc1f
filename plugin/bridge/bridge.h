/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Where C meets C++. The C files of this folder see QEMU and, of the unit, only this header; the
 * C++ files see the unit and no QEMU header. What crosses is plain data and functions that do not
 * throw: what C++ cannot do, it says in its result.
 *
 * Addresses and sizes are in bytes. A source-id is a PCI requester id (bus 15:8, device 7:3,
 * function 2:0).
 *
 * Threading follows plugin/vtd/unit.h: functions marked [BQL] need QEMU's big lock, functions
 * marked [RCU] may be called from any thread inside an RCU read-side critical section. The big lock
 * counts as one for the memory map, which only changes under it.
 *
 * Memory that runs out ends the process, as everywhere in QEMU.
 */
#ifndef UMBRA_BRIDGE_BRIDGE_H
#define UMBRA_BRIDGE_BRIDGE_H

/* This file is C as well, so the advice for C++ does not apply.
 * NOLINTBEGIN(modernize-deprecated-headers,modernize-use-using) */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define UMBRA_NOEXCEPT noexcept
#else
#define UMBRA_NOEXCEPT
#endif

/* ---- Guest RAM ---- */

/* A piece of guest RAM (or ROM, then not writable) that is contiguous in QEMU's address space. */
typedef struct UmbraRamRange {
    uint64_t address; /* guest-physical */
    uint64_t size;
    uint8_t* host;
    bool writable;
} UmbraRamRange;

/* An immutable, sorted set of such pieces. Whoever holds it owns it. */
typedef struct UmbraRamMap UmbraRamMap;

/* `ranges` in any order, without overlap. */
UmbraRamMap* umbra_ram_map_new(const UmbraRamRange* ranges, size_t count) UMBRA_NOEXCEPT;
void umbra_ram_map_free(UmbraRamMap* map) UMBRA_NOEXCEPT;

/* ---- What the unit asks of the platform ---- */

typedef enum UmbraScopeKind {
    UMBRA_SCOPE_GLOBAL,
    UMBRA_SCOPE_DOMAIN, /* `domain` */
    UMBRA_SCOPE_DEVICE, /* context cache: `domain`, `source`, `function_mask` */
    UMBRA_SCOPE_PAGES,  /* IOTLB: `domain`, `first` to `last` */
} UmbraScopeKind;

/* What an invalidation is about. Only the members that the kind names mean something. */
typedef struct UmbraScope {
    UmbraScopeKind kind;
    uint16_t domain;
    uint16_t source;
    /* Function-number bits of `source` that are not compared (a mask, 0 to 7). */
    uint8_t function_mask;
    /* IOVAs, both included. */
    uint64_t first;
    uint64_t last;
} UmbraScope;

/* All called with the big lock held, except send_message and write_memory: those come from any
 * thread that may do DMA. All but write_memory are told after the unit dropped its own cached
 * entries and before the guest sees the invalidation completed. */
typedef struct UmbraPlatform {
    void* opaque;
    /* The whole of the target is writable RAM. False if it could not be written. */
    bool (*write_memory)(void* opaque, uint64_t address, const void* from, size_t size);
    /* An interrupt of the unit itself; not remapped. Must not call the unit. */
    void (*send_message)(void* opaque, uint64_t address, uint32_t data);
    /* Translation went on or off, or has a new root table. */
    void (*translation_changed)(void* opaque);
    void (*contexts_changed)(void* opaque, const UmbraScope* scope);
    void (*iotlb_changed)(void* opaque, const UmbraScope* scope);
    /* A device's own TLB must drop `first` to `last`. */
    void (*device_tlb_changed)(void* opaque, uint16_t source, uint64_t first, uint64_t last);
    /* Interrupt remapping went on or off, or compatibility format was allowed or blocked. */
    void (*interrupt_remapping_changed)(void* opaque);
    /* Remapping entries changed, since the last call; which ones is not kept. */
    void (*interrupt_entries_changed)(void* opaque);
    /* A sentence for the operator about mappings that the host refused, or took after all. */
    void (*report)(void* opaque, bool trouble, const char* sentence);
    /* on-map-error=stop: the machine is to stop before the guest relies on what is missing. True
     * if it will: the guest sees no invalidation completed before umbra_unit_machine_stopped().
     * False if it stands still already. */
    bool (*stop_machine)(void* opaque);
} UmbraPlatform;

/* ---- The unit ---- */

typedef struct UmbraUnit UmbraUnit;

/* As vtd::UnitProperties. */
typedef struct UmbraUnitProperties {
    unsigned address_width;
    unsigned host_address_width;
    bool caching_mode;
    bool interrupt_remapping;
    bool extended_interrupt_mode;
    bool pass_through;
    bool device_iotlb;
    bool snoop_control;
} UmbraUnitProperties;

enum { UMBRA_REGISTER_SPACE = 0x1000 };

/* As shadow::Options. */
typedef struct UmbraShadowOptions {
    bool coalesce;
    bool stop_on_map_error;
    uint64_t max_mappings; /* leaf entries of one guest domain */
    uint32_t max_tables;   /* table pages of one guest domain; the unit may have twice as many */
    uint32_t slice_us;     /* longest work in one go; 0: no limit */
} UmbraShadowOptions;

/* A sentence (static) that says why no unit can be made of these, or NULL. */
const char* umbra_unit_properties_error(const UmbraUnitProperties* properties) UMBRA_NOEXCEPT;

/* `properties` have no error, `*platform` is copied. Until it gets a map, the unit knows of no RAM.
 * [BQL] */
UmbraUnit* umbra_unit_new(const UmbraUnitProperties* properties, const UmbraShadowOptions* options,
                          const UmbraPlatform* platform) UMBRA_NOEXCEPT;
void umbra_unit_free(UmbraUnit* unit) UMBRA_NOEXCEPT;

/* Puts `map` in force and gives the previous one (NULL at first) back; the caller frees it after a
 * grace period, and keeps its host memory in place until then. [BQL] */
UmbraRamMap* umbra_unit_swap_ram_map(UmbraUnit* unit, UmbraRamMap* map) UMBRA_NOEXCEPT;

uint64_t umbra_unit_mmio_read(const UmbraUnit* unit, uint32_t offset,
                              unsigned size) UMBRA_NOEXCEPT; /* [BQL] */
void umbra_unit_mmio_write(UmbraUnit* unit, uint32_t offset, uint64_t value,
                           unsigned size) UMBRA_NOEXCEPT; /* [BQL] */
void umbra_unit_reset(UmbraUnit* unit) UMBRA_NOEXCEPT;    /* [BQL] */

/* A write to a register can leave work over, if the guest's invalidations changed so much that one
 * call would hold the lock for long: then the guest's wait descriptor or command completes later.
 * Whoever wrote the register sees to it that umbra_unit_work() is called, which does some more and
 * says whether there is still some left, with the lock let go in between. [BQL] */
bool umbra_unit_has_work(const UmbraUnit* unit) UMBRA_NOEXCEPT;
bool umbra_unit_work(UmbraUnit* unit) UMBRA_NOEXCEPT;

/* From stop_machine's true to the next of these: [BQL] */
bool umbra_unit_machine_stopping(const UmbraUnit* unit) UMBRA_NOEXCEPT;
/* What waited for it completes with the next umbra_unit_work(). [BQL] */
void umbra_unit_machine_stopped(UmbraUnit* unit) UMBRA_NOEXCEPT;
/* Tries again what the host refused. What it still refuses stops the machine again. [BQL] */
void umbra_unit_machine_goes_on(UmbraUnit* unit) UMBRA_NOEXCEPT;

enum { UMBRA_ACCESS_NONE = 0, UMBRA_ACCESS_READ = 1, UMBRA_ACCESS_WRITE = 2 };

typedef struct UmbraTranslation {
    bool ok;
    uint8_t access;     /* what the mapping allows: UMBRA_ACCESS_* */
    uint64_t address;   /* guest-physical, offset in the page included */
    uint64_t page_mask; /* size of the page minus one */
} UmbraTranslation;

/* Translates a DMA and logs the fault if it must not happen. [RCU] */
UmbraTranslation umbra_unit_translate(UmbraUnit* unit, uint16_t source, uint64_t iova,
                                      unsigned wanted) UMBRA_NOEXCEPT;
/* The same without any side effect. [RCU] */
UmbraTranslation umbra_unit_lookup(const UmbraUnit* unit, uint16_t source,
                                   uint64_t iova) UMBRA_NOEXCEPT;

typedef struct UmbraInterrupt {
    bool ok;       /* false: blocked */
    bool remapped; /* false: deliver the message as it is; the rest is 0 */
    bool logical_destination;
    bool redirection_hint;
    bool level_triggered;
    uint8_t vector;
    uint8_t delivery_mode;
    uint32_t destination;
} UmbraInterrupt;

/* Remaps a message that was sent, and logs the fault if it must not be delivered. [RCU] */
UmbraInterrupt umbra_unit_remap(UmbraUnit* unit, uint16_t source, uint64_t address,
                                uint32_t data) UMBRA_NOEXCEPT;
/* What would become of a message, without any side effect. [RCU] */
UmbraInterrupt umbra_unit_lookup_interrupt(const UmbraUnit* unit, uint16_t source, uint64_t address,
                                           uint32_t data) UMBRA_NOEXCEPT;

/* How the guest's tables treat a device now. */
typedef struct UmbraContext {
    bool present;      /* false: its DMA faults; the rest is 0 */
    bool pass_through; /* its addresses are guest-physical */
    uint16_t domain;
} UmbraContext;

UmbraContext umbra_unit_context(const UmbraUnit* unit, uint16_t source) UMBRA_NOEXCEPT; /* [RCU] */
bool umbra_unit_translation_enabled(const UmbraUnit* unit) UMBRA_NOEXCEPT;
bool umbra_unit_interrupt_remapping_enabled(const UmbraUnit* unit) UMBRA_NOEXCEPT;

/* ---- The shadow: guest tables as host mappings ---- */

typedef enum UmbraDmaMode {
    UMBRA_DMA_BLOCKED,
    UMBRA_DMA_TRANSLATED,
    UMBRA_DMA_PASS_THROUGH,
} UmbraDmaMode;

/* As shadow::HostMapping. */
typedef struct UmbraMapping {
    uint64_t iova;
    uint64_t bytes;
    void* host;
    uint64_t guest;  /* what `host` is to the guest */
    unsigned access; /* UMBRA_ACCESS_* */
} UmbraMapping;

/* Where the mappings of one device go; the rules are those of shadow::HostMapper. All [BQL]; none
 * may call the shadow. */
typedef struct UmbraHostPort {
    void* opaque;
    /* As the guest has numbered the buses now. */
    uint16_t (*source)(void* opaque);
    /* Maps in order until one fails; returns how many were mapped. `*error` is set to a positive
     * errno value if one failed, and left alone otherwise. */
    size_t (*map)(void* opaque, const UmbraMapping* mappings, size_t count, int* error);
    /* Returns 0 or a positive errno value. */
    int (*unmap)(void* opaque, uint64_t iova, uint64_t bytes);
    /* As shadow::Device::set_mode. */
    void (*set_mode)(void* opaque, UmbraDmaMode mode);
} UmbraHostPort;

typedef struct UmbraShadowDevice UmbraShadowDevice;

/* From here on `port` (copied) is given what the guest's tables map for the device. [BQL] */
UmbraShadowDevice* umbra_shadow_add(UmbraUnit* unit, const UmbraHostPort* port) UMBRA_NOEXCEPT;
/* Unmaps everything of the device and forgets it. [BQL] */
void umbra_shadow_remove(UmbraUnit* unit, UmbraShadowDevice* device) UMBRA_NOEXCEPT;
/* The guest has numbered buses anew: each device gets the mappings of its new source-id. [BQL] */
void umbra_shadow_sources_changed(UmbraUnit* unit) UMBRA_NOEXCEPT;
/* Does all work that is left over now, unless the caller is told of an invalidation: then what was
 * left over is done before the guest sees that completed. [BQL] */
void umbra_shadow_settle(UmbraUnit* unit) UMBRA_NOEXCEPT;
/* Maps everything again, for a port that holds nothing any more. [BQL] */
void umbra_shadow_replay(UmbraUnit* unit, UmbraShadowDevice* device) UMBRA_NOEXCEPT;

/* What the guest's tables say beside what is mapped on the host, as one JSON object
 * (verification_json.h says what is in it). Free it with umbra_string_free(). [BQL] */
char* umbra_unit_verify(const UmbraUnit* unit) UMBRA_NOEXCEPT;

/* ---- State and statistics ---- */

enum { UMBRA_SAVED_REGISTER_BYTES = 0x300 };

/* As vtd::SavedState. */
typedef struct UmbraSavedState {
    uint32_t version;
    uint32_t next_fault_record;
    uint64_t root_table;
    uint64_t interrupt_table;
    uint8_t registers[UMBRA_SAVED_REGISTER_BYTES];
} UmbraSavedState;

void umbra_unit_save(const UmbraUnit* unit, UmbraSavedState* state) UMBRA_NOEXCEPT; /* [BQL] */
/* False, and nothing changed, if `state` is not one of a unit with these properties. [BQL] */
bool umbra_unit_restore(UmbraUnit* unit, const UmbraSavedState* state) UMBRA_NOEXCEPT;

/* What a snapshot says about itself; plugin/telemetry/umbra.proto describes both. */
typedef struct UmbraSnapshotStamp {
    const char* unit;
    uint64_t sequence;
    uint64_t interval_ns;
    uint64_t dropped;
} UmbraSnapshotStamp;

/* A snapshot of the counters as one JSON object. Free it with umbra_string_free(). [BQL] */
char* umbra_unit_statistics(const UmbraUnit* unit, const UmbraSnapshotStamp* stamp) UMBRA_NOEXCEPT;
/* The same in binary form, preceded by its length, as files and streams have it. Free it with
 * umbra_string_free(). [BQL] */
char* umbra_unit_snapshot(const UmbraUnit* unit, const UmbraSnapshotStamp* stamp,
                          size_t* size) UMBRA_NOEXCEPT;
void umbra_unit_clear_statistics(UmbraUnit* unit) UMBRA_NOEXCEPT; /* [BQL] */
void umbra_string_free(char* string) UMBRA_NOEXCEPT;

#ifdef __cplusplus
}
#endif

/* NOLINTEND(modernize-deprecated-headers,modernize-use-using) */

#endif
