/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The register layout of umbra-probe, a PCI function for tests and benchmarks on any vIOMMU.
 *
 * Layout only: shared by the device (C), the qtest harness (C++) and guest programs that map BAR 0.
 *
 * BAR 0 is 8 KiB of little-endian memory: 64-bit registers in the first 4 KiB, then a data window
 * of 4 KiB. Registers take naturally aligned accesses of 4 or 8 bytes; a 4-byte access reads or
 * writes one half. A command register acts when its low half is written. Registers not listed here
 * read as 0 and ignore writes. Every command is complete when the write that gave it returns.
 */
#ifndef UMBRA_PLUGIN_PROBE_REGISTERS_H
#define UMBRA_PLUGIN_PROBE_REGISTERS_H

enum {
    UMBRA_PROBE_VENDOR_ID = 0x1234,
    UMBRA_PROBE_DEVICE_ID = 0x7562,

    UMBRA_PROBE_BAR_SIZE = 0x2000,
    UMBRA_PROBE_WINDOW = 0x1000,
    UMBRA_PROBE_WINDOW_SIZE = 0x1000,

    UMBRA_PROBE_MSI_VECTORS = 4,
};

/* Identification. */
enum {
    /* RO. "UMBPROBE" as bytes. */
    UMBRA_PROBE_ID = 0x000,
    /* RO. Version of this layout. */
    UMBRA_PROBE_VERSION = 0x008,
};
#define UMBRA_PROBE_ID_VALUE 0x45424f5250424d55ULL
#define UMBRA_PROBE_VERSION_VALUE 1ULL

/*
 * DMA. Transfers use the function's own requester id and obey its Bus Master Enable bit. A 4-byte
 * write to 0xfeexxxxx is an interrupt message like any other device's.
 */
enum {
    /* RW. First byte of the transfer. */
    UMBRA_PROBE_DMA_IOVA = 0x040,
    /* RW. Bytes: 1 to UMBRA_PROBE_WINDOW_SIZE for READ and WRITE, 1 to 64 MiB otherwise. */
    UMBRA_PROBE_DMA_LENGTH = 0x048,
    /* RW. What FILL writes and CHECK expects, repeated from the first byte on. */
    UMBRA_PROBE_DMA_PATTERN = 0x050,
    /* WO. Starts a transfer, UMBRA_PROBE_DMA_COMMAND_*. */
    UMBRA_PROBE_DMA_COMMAND = 0x058,
    /* RO. Outcome of the last command, UMBRA_PROBE_DMA_STATUS_*. */
    UMBRA_PROBE_DMA_STATUS = 0x060,
    /* RO. Bytes that were transferred (and, for CHECK, found equal) before the outcome. Transfers
     * stop at the first 4 KiB piece that fails; a piece that fails counts as nothing. */
    UMBRA_PROBE_DMA_DONE = 0x068,
};
enum {
    UMBRA_PROBE_DMA_COMMAND_READ = 1,  /* guest memory to window */
    UMBRA_PROBE_DMA_COMMAND_WRITE = 2, /* window to guest memory */
    UMBRA_PROBE_DMA_COMMAND_FILL = 3,  /* pattern to guest memory */
    UMBRA_PROBE_DMA_COMMAND_CHECK = 4, /* guest memory against pattern */
};
enum {
    UMBRA_PROBE_DMA_STATUS_IDLE = 0,
    UMBRA_PROBE_DMA_STATUS_OK = 1,
    UMBRA_PROBE_DMA_STATUS_FAULT = 2,    /* the bus or the IOMMU rejected a piece */
    UMBRA_PROBE_DMA_STATUS_MISMATCH = 3, /* CHECK found another byte */
    UMBRA_PROBE_DMA_STATUS_REFUSED = 4,  /* unknown command or length out of range */
};

/* Interrupts. */
enum {
    /* WO. Sends MSI vector 0 to UMBRA_PROBE_MSI_VECTORS - 1; nothing if MSI is off or the guest
     * enabled fewer vectors. */
    UMBRA_PROBE_MSI_TRIGGER = 0x080,
};

/*
 * Listening: the function stands for a passed-through device. It is told of every mapping that the
 * vIOMMU makes or drops, as VFIO is, and counts it.
 */
enum {
    /* RW. UMBRA_PROBE_LISTEN_* bits. Setting ON registers for notifications, replay of what is
     * mapped included; clearing it unregisters and forgets the live mappings. Its reset value, and
     * the rest of a system reset, leave it as the properties made it. RULES can change only while
     * ON is clear. */
    UMBRA_PROBE_LISTEN = 0x100,
    /* WO. Any write zeroes the counters below (live mappings stay). */
    UMBRA_PROBE_LISTEN_CLEAR = 0x108,
    /* RO. Map and unmap notifications, and the bytes in them, refused ones included. */
    UMBRA_PROBE_LISTEN_MAPS = 0x110,
    UMBRA_PROBE_LISTEN_UNMAPS = 0x118,
    UMBRA_PROBE_LISTEN_MAPPED_BYTES = 0x120,
    UMBRA_PROBE_LISTEN_UNMAPPED_BYTES = 0x128,
    /* RO. RAM that entered or left the function's address space as a whole (translation switched
     * off or on, pass-through), and IOMMU regions that did; each is one large call for VFIO. */
    UMBRA_PROBE_LISTEN_RAM_MAPS = 0x130,
    UMBRA_PROBE_LISTEN_RAM_UNMAPS = 0x138,
    UMBRA_PROBE_LISTEN_REGION_ADDS = 0x140,
    UMBRA_PROBE_LISTEN_REGION_DELS = 0x148,

    /* RO. With RULES: what VFIO type1v2 would have refused. */
    UMBRA_PROBE_REFUSED_OVERLAP = 0x150, /* map over a live mapping (EEXIST) */
    UMBRA_PROBE_REFUSED_BISECT = 0x158,  /* unmap that would cut a live mapping (EINVAL) */
    UMBRA_PROBE_REFUSED_LIMIT = 0x160,   /* map beyond dma-entry-limit (ENOSPC) */
    UMBRA_PROBE_REFUSED_TARGET = 0x168,  /* map of something that is not RAM in one piece */
    /* RO. With RULES: unmaps that removed nothing. */
    UMBRA_PROBE_EMPTY_UNMAPS = 0x170,

    /* RO. With RULES: the live mappings. */
    UMBRA_PROBE_LIVE_MAPPINGS = 0x180,
    UMBRA_PROBE_LIVE_BYTES = 0x188,
    UMBRA_PROBE_LIVE_PEAK = 0x190, /* most mappings at once since the last clear */
    /* WO. Fills the window with `struct UmbraProbeMapping`s in order of IOVA, from the first one
     * that ends at or above the written IOVA. */
    UMBRA_PROBE_LIVE_READ = 0x198,
    /* RO. How many mappings the last LIVE_READ wrote; fewer than fit means that it was all. */
    UMBRA_PROBE_LIVE_READ_COUNT = 0x1a0,

    /* WO. While listening without RULES: this many map notifications, at most 65,536, go through
     * QEMU to this listener as a vIOMMU's do, and are counted like those. What they take is the
     * part of a measured invalidation that is the listener's. */
    UMBRA_PROBE_REHEARSE = 0x1a8,
    /* RO. What the last REHEARSE took, ns; 0 if it sent none. */
    UMBRA_PROBE_REHEARSE_NS = 0x1b0,
};
enum {
    UMBRA_PROBE_LISTEN_ON = 1,
    UMBRA_PROBE_LISTEN_RULES = 2,
};

/* One live mapping. All fields little-endian. */
struct UmbraProbeMapping {
    unsigned long long iova;
    unsigned long long last;   /* last byte, so that a mapping may end at 2^64 - 1 */
    unsigned long long target; /* guest-physical address of the first byte */
    unsigned long long flags;  /* bit 0 readable, bit 1 writable */
};

/*
 * Time. The doorbell writes a register of another device (an IOMMU's queue tail, say) from inside
 * QEMU, and times each write, so that the measured time holds neither a VM exit nor a socket.
 */
enum {
    /* RO. The host's monotonic clock, ns. */
    UMBRA_PROBE_CLOCK = 0x200,
    /* RW. Guest-physical address, width in bytes (4 or 8) and value of the next write. */
    UMBRA_PROBE_DOORBELL_ADDRESS = 0x208,
    UMBRA_PROBE_DOORBELL_WIDTH = 0x210,
    UMBRA_PROBE_DOORBELL_VALUE = 0x218,
    /* RW. Added to the value after each write, modulo WRAP (0: modulo 2^64). */
    UMBRA_PROBE_DOORBELL_STEP = 0x220,
    UMBRA_PROBE_DOORBELL_WRAP = 0x228,
    /* WO. Writes this many times, at most 65,536; stops early after 10 s. */
    UMBRA_PROBE_DOORBELL_RING = 0x230,
    /* RO. Of the last RING: writes made, those that failed, and times in ns. The window holds the
     * first 512 times as 64-bit values. */
    UMBRA_PROBE_DOORBELL_DONE = 0x238,
    UMBRA_PROBE_DOORBELL_FAILED = 0x240,
    UMBRA_PROBE_DOORBELL_NS = 0x248,
    UMBRA_PROBE_DOORBELL_NS_MIN = 0x250,
    UMBRA_PROBE_DOORBELL_NS_MAX = 0x258,
    /* RO. The clock at the first write of the last RING: what a write set off may go on after it,
     * and end when the program sees it end. */
    UMBRA_PROBE_DOORBELL_START = 0x260,
};

#endif /* UMBRA_PLUGIN_PROBE_REGISTERS_H */
