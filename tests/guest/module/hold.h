/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * umbra_dma_hold: maps and unmaps pages for DMA, timed, while many others stay
 * mapped.
 *
 * What a domain-selective invalidation costs a hypervisor grows with what is
 * mapped in the domain, so the latency of map and unmap has to be measured
 * beside a known number of live mappings. The device never does DMA; it only
 * lends its IOMMU domain.
 *
 *   main.c	binding to a PCI device, through driver_override only
 *   control.c	debugfs files and the rules for what is written to them
 *   held.c	the mappings that stay
 *   timed.c	the threads that map and unmap
 *
 * All mappings are DMA_TO_DEVICE: the DMA API allows one page to be mapped
 * several times at once in that direction only.
 */
#ifndef UMBRA_DMA_HOLD_HOLD_H
#define UMBRA_DMA_HOLD_HOLD_H

#include <linux/device.h>
#include <linux/dcache.h>
#include <linux/dma-mapping.h>
#include <linux/mutex.h>
#include <linux/scatterlist.h>
#include <linux/types.h>
#include <linux/wait.h>

#include "histogram.h"

/* A loop over mappings gives way to others after so many of them. */
#define RESCHEDULE_EVERY	64

enum hold_layout {
	/*
	 * Neighbours in IOVA space map neighbours in memory, as far as the
	 * IOVA allocator hands out falling addresses.
	 */
	LAYOUT_CONTIGUOUS,
	/*
	 * No two held pages are neighbours: between them lie single free
	 * pages. Memory is in random order.
	 */
	LAYOUT_SCATTERED,
	/*
	 * Neighbours in IOVA space map neighbours in memory the wrong way
	 * round, so no two can become one mapping. HOLD_BUNDLE of them are
	 * mapped, and unmapped, in one call: the quick way to many mappings.
	 */
	LAYOUT_REVERSED,
};

/* Pages mapped in one call with LAYOUT_REVERSED. */
#define HOLD_BUNDLE	64

/* What control.c lets through; README.md has the limits. */
struct hold_parameters {
	u64 pages_mapped;
	u64 physical_pages;
	u64 layout;		/* enum hold_layout */
	u64 pages;		/* a map of the timed loop */
	u64 threads;
	u64 batch;		/* maps before they are unmapped again */
	u64 operations;		/* maps a thread, 0: no limit */
	u64 seconds;		/* 0: no limit */
};

/* The mappings that stay. */
struct held_pages {
	struct page **memory;
	u64 memory_count;
	dma_addr_t *mappings;		/* of single pages */
	u64 mapping_count;
	struct sg_table *bundles;	/* with LAYOUT_REVERSED, instead */
	u64 bundle_count;
	struct histogram latency;	/* of each call that maps them */
};

struct timed_result {
	struct hold_parameters parameters;	/* that it was run with */
	u64 operations;
	u64 map_errors;
	u64 elapsed_ns;
	struct histogram map;
	struct histogram unmap;
};

struct hold_device {
	struct device *device;
	/* DMA masks that the device had before, given back at the end. */
	u64 original_mask;
	u64 original_coherent_mask;
	struct dentry *folder;
	/* Everything below is read and written with the lock held. */
	struct mutex lock;
	struct hold_parameters parameters;
	struct held_pages held;
	bool holding;
	struct timed_result result;
	bool has_result;
	/* Set once, without the lock, when the driver is unbound. */
	bool leaving;
	/* Woken when a thread of the timed loop ends, and when leaving. */
	wait_queue_head_t wait;
};

/*
 * True if a long operation of the current process has to end: a signal came or
 * the driver is being unbound.
 */
bool hold_interrupted(struct hold_device *hold);

/*
 * Maps parameters.pages_mapped pages. On an error (-ENOMEM, -EINTR, -EIO if the
 * DMA API refused a mapping) nothing stays mapped.
 */
int held_map(struct hold_device *hold);
void held_unmap(struct hold_device *hold);

/*
 * Runs the timed loop and fills in result. Sleeps until it is done. -EINTR if
 * hold_interrupted() ended it; then all it mapped is unmapped.
 */
int timed_run(struct hold_device *hold, struct timed_result *result);

/* Makes the debugfs files below the given folder. */
void control_create(struct hold_device *hold, struct dentry *parent);

/*
 * Removes the files. Ends a running operation and returns when no file is in
 * use any more.
 */
void control_remove(struct hold_device *hold);

#endif
