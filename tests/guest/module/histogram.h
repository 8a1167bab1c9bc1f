/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Log-linear histogram of latencies.
 *
 * Each power of two is divided into HISTOGRAM_STEPS buckets of equal width, so
 * a value is known to within 1/HISTOGRAM_STEPS of itself (3.2 %) over the whole
 * range, and recording one costs a bit scan and an increment. Percentiles are
 * upper bounds: the highest value that falls into the bucket, but never more
 * than the highest value recorded.
 *
 * Not thread-safe: each thread records into its own and they are added up at
 * the end.
 */
#ifndef UMBRA_DMA_HOLD_HISTOGRAM_H
#define UMBRA_DMA_HOLD_HISTOGRAM_H

#include <linux/bits.h>
#include <linux/seq_file.h>
#include <linux/types.h>

#define HISTOGRAM_STEP_BITS	5
#define HISTOGRAM_STEPS		BIT(HISTOGRAM_STEP_BITS)
/* Values of 2^40 ns (18 minutes) and more share the last bucket. */
#define HISTOGRAM_VALUE_BITS	40
#define HISTOGRAM_BUCKETS \
	((HISTOGRAM_VALUE_BITS - HISTOGRAM_STEP_BITS + 1) * HISTOGRAM_STEPS)

struct histogram {
	u64 count;
	u64 sum;
	u64 min;
	u64 max;
	u64 buckets[HISTOGRAM_BUCKETS];
};

void histogram_clear(struct histogram *histogram);
void histogram_record(struct histogram *histogram, u64 value);
void histogram_add(struct histogram *sum, const struct histogram *part);

/*
 * Highest value of the bucket that holds the value of rank
 * ceil(count * permille / 1000). 0 if nothing was recorded.
 */
u64 histogram_percentile(const struct histogram *histogram, u32 permille);

/* Writes a JSON object; all but count are null if nothing was recorded. */
void histogram_show(struct seq_file *seq, const struct histogram *histogram);

#endif
