// SPDX-License-Identifier: GPL-2.0-or-later

#include <linux/gfp.h>
#include <linux/log2.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/prandom.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>

#include "hold.h"

/* Fail instead of driving the machine out of memory. */
#define MEMORY_GFP	(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN)
/* A device may read what is mapped for it, so no old contents. */
#define PAGE_GFP	(MEMORY_GFP | __GFP_ZERO)
/* Largest run asked from the page allocator: 4 MiB. */
#define RUN_ORDER	10
#define SHUFFLE_SEED	1

static void free_memory(struct held_pages *held)
{
	u64 i;

	for (i = 0; i < held->memory_count; i++)
		__free_page(held->memory[i]);
	kvfree(held->memory);
	held->memory = NULL;
	held->memory_count = 0;
}

/* Appends up to @wanted pages that lie one behind the other. */
static int allocate_run(struct held_pages *held, u64 wanted)
{
	unsigned int order = min_t(unsigned int, RUN_ORDER, ilog2(wanted));
	struct page *run;
	u64 i;

	while (!(run = alloc_pages(PAGE_GFP, order))) {
		if (!order)
			return -ENOMEM;
		order--;
	}
	split_page(run, order);
	for (i = 0; i < 1ULL << order; i++)
		held->memory[held->memory_count++] = run + i;
	return 0;
}

static void shuffle(struct page **pages, u64 count)
{
	struct rnd_state random;
	u64 i, other;

	prandom_seed_state(&random, SHUFFLE_SEED);
	for (i = count; i > 1; i--) {
		other = prandom_u32_state(&random) % i;
		swap(pages[i - 1], pages[other]);
	}
}

static int allocate_memory(struct hold_device *hold)
{
	struct held_pages *held = &hold->held;
	u64 count = hold->parameters.physical_pages;
	int ret;

	held->memory = kvcalloc(count, sizeof(*held->memory), MEMORY_GFP);
	if (!held->memory)
		return -ENOMEM;
	while (held->memory_count < count) {
		ret = hold_interrupted(hold) ? -EINTR :
		      allocate_run(held, count - held->memory_count);
		if (ret) {
			free_memory(held);
			return ret;
		}
		cond_resched();
	}
	if (hold->parameters.layout == LAYOUT_SCATTERED)
		shuffle(held->memory, count);
	return 0;
}

/*
 * The page behind the held page of that number. IOVAs fall, so memory does too:
 * neighbours then match.
 */
static struct page *memory_of(const struct held_pages *held, u64 number)
{
	return held->memory[held->memory_count - 1 -
			    number % held->memory_count];
}

static void unmap_one(struct hold_device *hold, dma_addr_t mapping)
{
	dma_unmap_page(hold->device, mapping, PAGE_SIZE, DMA_TO_DEVICE);
}

/* Maps @count pages into held->mappings; held->mapping_count says how many. */
static int map_pages(struct hold_device *hold, u64 count)
{
	struct held_pages *held = &hold->held;
	/* Of two scattered mappings one stays; both are of the same page. */
	unsigned int mappings_each =
		hold->parameters.layout == LAYOUT_SCATTERED ? 2 : 1;
	u64 before, after;
	dma_addr_t mapping;
	struct page *page;

	while (held->mapping_count < count) {
		page = memory_of(held, held->mapping_count / mappings_each);
		before = ktime_get_ns();
		mapping = dma_map_page(hold->device, page, 0, PAGE_SIZE,
				       DMA_TO_DEVICE);
		after = ktime_get_ns();
		if (dma_mapping_error(hold->device, mapping))
			return -EIO;
		histogram_record(&held->latency, after - before);
		held->mappings[held->mapping_count++] = mapping;
		if (held->mapping_count % RESCHEDULE_EVERY == 0) {
			if (hold_interrupted(hold))
				return -EINTR;
			cond_resched();
		}
	}
	return 0;
}

/*
 * Unmaps every second page. Done after all are mapped, or else the IOVA
 * allocator would hand the holes out again.
 */
static void make_holes(struct hold_device *hold)
{
	struct held_pages *held = &hold->held;
	u64 kept = held->mapping_count / 2;
	u64 i;

	for (i = 0; i < kept; i++) {
		unmap_one(hold, held->mappings[2 * i + 1]);
		held->mappings[i] = held->mappings[2 * i];
		if (i % RESCHEDULE_EVERY == 0)
			cond_resched();
	}
	held->mapping_count = kept;
}

static int map_bundle(struct hold_device *hold, u64 first, unsigned int pages)
{
	struct held_pages *held = &hold->held;
	struct sg_table *bundle = &held->bundles[held->bundle_count];
	struct scatterlist *entry;
	unsigned int i;
	u64 before;
	int ret;

	ret = sg_alloc_table(bundle, pages, MEMORY_GFP);
	if (ret)
		return ret;
	/* Within the bundle IOVAs rise, while memory goes on falling. */
	for_each_sgtable_sg(bundle, entry, i)
		sg_set_page(entry, memory_of(held, first + i), PAGE_SIZE, 0);
	before = ktime_get_ns();
	ret = dma_map_sgtable(hold->device, bundle, DMA_TO_DEVICE, 0);
	if (ret) {
		sg_free_table(bundle);
		return -EIO;
	}
	histogram_record(&held->latency, ktime_get_ns() - before);
	held->bundle_count++;
	return 0;
}

static int map_bundles(struct hold_device *hold, u64 count)
{
	u64 first;
	int ret;

	for (first = 0; first < count; first += HOLD_BUNDLE) {
		ret = hold_interrupted(hold) ? -EINTR :
		      map_bundle(hold, first,
				 min_t(u64, count - first, HOLD_BUNDLE));
		if (ret)
			return ret;
		cond_resched();
	}
	return 0;
}

static int map_reversed(struct hold_device *hold, u64 count)
{
	struct held_pages *held = &hold->held;

	held->bundles = kvcalloc(DIV_ROUND_UP(count, HOLD_BUNDLE),
				 sizeof(*held->bundles), MEMORY_GFP);
	return held->bundles ? map_bundles(hold, count) : -ENOMEM;
}

static int map_single(struct hold_device *hold, u64 count)
{
	struct held_pages *held = &hold->held;

	held->mappings = kvcalloc(count, sizeof(*held->mappings), MEMORY_GFP);
	return held->mappings ? map_pages(hold, count) : -ENOMEM;
}

int held_map(struct hold_device *hold)
{
	struct held_pages *held = &hold->held;
	bool scattered = hold->parameters.layout == LAYOUT_SCATTERED;
	u64 count = hold->parameters.pages_mapped * (scattered ? 2 : 1);
	int ret;

	histogram_clear(&held->latency);
	held->mapping_count = 0;
	held->bundle_count = 0;
	if (!count)
		return 0;
	ret = allocate_memory(hold);
	if (ret)
		return ret;
	ret = hold->parameters.layout == LAYOUT_REVERSED ?
	      map_reversed(hold, count) : map_single(hold, count);
	if (ret)
		held_unmap(hold);
	else if (scattered)
		make_holes(hold);
	return ret;
}

void held_unmap(struct hold_device *hold)
{
	struct held_pages *held = &hold->held;
	u64 i;

	for (i = 0; i < held->mapping_count; i++) {
		unmap_one(hold, held->mappings[i]);
		if (i % RESCHEDULE_EVERY == 0)
			cond_resched();
	}
	for (i = 0; i < held->bundle_count; i++) {
		dma_unmap_sgtable(hold->device, &held->bundles[i],
				  DMA_TO_DEVICE, 0);
		sg_free_table(&held->bundles[i]);
		cond_resched();
	}
	kvfree(held->mappings);
	held->mappings = NULL;
	held->mapping_count = 0;
	kvfree(held->bundles);
	held->bundles = NULL;
	held->bundle_count = 0;
	free_memory(held);
}
