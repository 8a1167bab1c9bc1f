/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The set of live mappings that a VFIO container would hold, with the rules of VFIO's type1v2 back
 * end: a map over a live mapping is refused, and so is an unmap that would cut one in two.
 *
 * Ranges are IOVAs with both ends included. Not thread-safe; the caller serialises.
 */
#ifndef UMBRA_PLUGIN_PROBE_MAPPING_MODEL_H
#define UMBRA_PLUGIN_PROBE_MAPPING_MODEL_H

/* This file is C as well, so the advice for C++ does not apply.
 * NOLINTBEGIN(modernize-deprecated-headers) */

#include <stddef.h>
#include <stdint.h>

/* NOLINTEND(modernize-deprecated-headers) */

#ifdef __cplusplus
extern "C" {
#endif

struct UmbraMappingModel;

struct UmbraMapping {
    uint64_t first;
    uint64_t last;
    uint64_t target; /* guest-physical address of the first byte */
    uint64_t flags;  /* bit 0 readable, bit 1 writable */
};

enum UmbraMappingResult {
    UMBRA_MAPPING_OK,
    UMBRA_MAPPING_OVERLAP, /* map: part of the range is live */
    UMBRA_MAPPING_LIMIT,   /* map: as many mappings as allowed are live */
    UMBRA_MAPPING_BISECT,  /* unmap: an end of the range lies inside a mapping */
    UMBRA_MAPPING_EMPTY,   /* unmap: nothing was live there. Not an error for VFIO */
};

/* `limit` is the most mappings at once. Ownership goes to the caller; aborts when out of memory, as
 * every allocation in QEMU does. */
struct UmbraMappingModel* umbra_mapping_model_new(uint64_t limit);
void umbra_mapping_model_free(struct UmbraMappingModel* model);

enum UmbraMappingResult umbra_mapping_model_map(struct UmbraMappingModel* model,
                                                const struct UmbraMapping* mapping);
/* All or nothing: a refused unmap changes nothing. */
enum UmbraMappingResult umbra_mapping_model_unmap(struct UmbraMappingModel* model, uint64_t first,
                                                  uint64_t last);

uint64_t umbra_mapping_model_count(const struct UmbraMappingModel* model);
/* Modulo 2^64. */
uint64_t umbra_mapping_model_bytes(const struct UmbraMappingModel* model);

/* Copies up to `room` mappings in order of IOVA, from the first one that ends at or above `from`.
 * Returns how many. */
size_t umbra_mapping_model_read(const struct UmbraMappingModel* model, uint64_t from,
                                struct UmbraMapping* into, size_t room);

#ifdef __cplusplus
}
#endif

#endif /* UMBRA_PLUGIN_PROBE_MAPPING_MODEL_H */
