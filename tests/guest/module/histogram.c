// SPDX-License-Identifier: GPL-2.0-or-later

#include <linux/bitops.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/string.h>

#include "histogram.h"

static unsigned int bucket_of(u64 value)
{
	unsigned int shift;

	if (value < HISTOGRAM_STEPS)
		return value;
	if (value >> HISTOGRAM_VALUE_BITS)
		return HISTOGRAM_BUCKETS - 1;
	shift = fls64(value) - 1 - HISTOGRAM_STEP_BITS;
	return (shift + 1) * HISTOGRAM_STEPS +
	       ((value >> shift) & (HISTOGRAM_STEPS - 1));
}

static u64 highest_value_of(unsigned int bucket)
{
	unsigned int shift;

	if (bucket < HISTOGRAM_STEPS)
		return bucket;
	shift = bucket / HISTOGRAM_STEPS - 1;
	return ((u64)(HISTOGRAM_STEPS + bucket % HISTOGRAM_STEPS + 1)
		<< shift) - 1;
}

void histogram_clear(struct histogram *histogram)
{
	memset(histogram, 0, sizeof(*histogram));
	histogram->min = U64_MAX;
}

void histogram_record(struct histogram *histogram, u64 value)
{
	histogram->count++;
	histogram->sum += value;
	histogram->min = min(histogram->min, value);
	histogram->max = max(histogram->max, value);
	histogram->buckets[bucket_of(value)]++;
}

void histogram_add(struct histogram *sum, const struct histogram *part)
{
	unsigned int i;

	sum->count += part->count;
	sum->sum += part->sum;
	sum->min = min(sum->min, part->min);
	sum->max = max(sum->max, part->max);
	for (i = 0; i < HISTOGRAM_BUCKETS; i++)
		sum->buckets[i] += part->buckets[i];
}

u64 histogram_percentile(const struct histogram *histogram, u32 permille)
{
	u64 rank = DIV64_U64_ROUND_UP(histogram->count * permille, 1000);
	u64 seen = 0;
	unsigned int i;

	for (i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += histogram->buckets[i];
		if (seen >= rank && seen)
			return min(highest_value_of(i), histogram->max);
	}
	return 0;
}

void histogram_show(struct seq_file *seq, const struct histogram *histogram)
{
	static const struct {
		const char *name;
		u32 permille;
	} percentiles[] = {
		{ "p50", 500 },
		{ "p90", 900 },
		{ "p99", 990 },
		{ "p999", 999 },
	};
	unsigned int i;

	if (!histogram->count) {
		seq_puts(seq, "{\"count\":0,\"mean\":null,\"min\":null");
		for (i = 0; i < ARRAY_SIZE(percentiles); i++)
			seq_printf(seq, ",\"%s\":null", percentiles[i].name);
		seq_puts(seq, ",\"max\":null}");
		return;
	}
	seq_printf(seq, "{\"count\":%llu,\"mean\":%llu,\"min\":%llu",
		   histogram->count,
		   div64_u64(histogram->sum, histogram->count),
		   histogram->min);
	for (i = 0; i < ARRAY_SIZE(percentiles); i++)
		seq_printf(seq, ",\"%s\":%llu", percentiles[i].name,
			   histogram_percentile(histogram,
						percentiles[i].permille));
	seq_printf(seq, ",\"max\":%llu}", histogram->max);
}
