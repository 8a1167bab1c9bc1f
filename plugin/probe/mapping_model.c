/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugin/probe/mapping_model.h"

#include <glib.h>

struct UmbraMappingModel {
    GTree* mappings; /* keys and values are the same UmbraMapping, owned by the tree */
    uint64_t limit;
    uint64_t bytes;
};

/* Live mappings never overlap, so their last bytes order them as well as their first ones do, and
 * the first mapping that ends at or above an address is a lower bound. */
static gint compare_last(gconstpointer a, gconstpointer b, gpointer unused) {
    const struct UmbraMapping* left = a;
    const struct UmbraMapping* right = b;

    return left->last < right->last ? -1 : left->last > right->last;
}

struct UmbraMappingModel* umbra_mapping_model_new(uint64_t limit) {
    struct UmbraMappingModel* model = g_new0(struct UmbraMappingModel, 1);

    model->mappings = g_tree_new_full(compare_last, NULL, g_free, NULL);
    model->limit = limit;
    return model;
}

void umbra_mapping_model_free(struct UmbraMappingModel* model) {
    if (model) {
        g_tree_destroy(model->mappings);
        g_free(model);
    }
}

static GTreeNode* first_ending_at_or_above(const struct UmbraMappingModel* model,
                                           uint64_t address) {
    const struct UmbraMapping key = {.last = address};

    return g_tree_lower_bound(model->mappings, &key);
}

static const struct UmbraMapping* mapping_at(const struct UmbraMappingModel* model,
                                             uint64_t address) {
    GTreeNode* node = first_ending_at_or_above(model, address);
    const struct UmbraMapping* mapping = node ? g_tree_node_value(node) : NULL;

    return mapping && mapping->first <= address ? mapping : NULL;
}

enum UmbraMappingResult umbra_mapping_model_map(struct UmbraMappingModel* model,
                                                const struct UmbraMapping* mapping) {
    GTreeNode* node = first_ending_at_or_above(model, mapping->first);
    struct UmbraMapping* copy;

    if (node) {
        const struct UmbraMapping* next = g_tree_node_value(node);

        if (next->first <= mapping->last) {
            return UMBRA_MAPPING_OVERLAP;
        }
    }
    if (umbra_mapping_model_count(model) >= model->limit) {
        return UMBRA_MAPPING_LIMIT;
    }
    copy = g_new(struct UmbraMapping, 1);
    *copy = *mapping;
    g_tree_insert(model->mappings, copy, copy);
    model->bytes += mapping->last - mapping->first + 1;
    return UMBRA_MAPPING_OK;
}

enum UmbraMappingResult umbra_mapping_model_unmap(struct UmbraMappingModel* model, uint64_t first,
                                                  uint64_t last) {
    const struct UmbraMapping* at_first = mapping_at(model, first);
    const struct UmbraMapping* at_last = mapping_at(model, last);
    enum UmbraMappingResult result = UMBRA_MAPPING_EMPTY;

    if ((at_first && at_first->first != first) || (at_last && at_last->last != last)) {
        return UMBRA_MAPPING_BISECT;
    }
    for (;;) {
        GTreeNode* node = first_ending_at_or_above(model, first);
        struct UmbraMapping* mapping = node ? g_tree_node_value(node) : NULL;

        if (!mapping || mapping->first > last) {
            return result;
        }
        model->bytes -= mapping->last - mapping->first + 1;
        g_tree_remove(model->mappings, mapping);
        result = UMBRA_MAPPING_OK;
    }
}

uint64_t umbra_mapping_model_count(const struct UmbraMappingModel* model) {
    return (uint64_t)g_tree_nnodes(model->mappings);
}

uint64_t umbra_mapping_model_bytes(const struct UmbraMappingModel* model) {
    return model->bytes;
}

size_t umbra_mapping_model_read(const struct UmbraMappingModel* model, uint64_t from,
                                struct UmbraMapping* into, size_t room) {
    GTreeNode* node = first_ending_at_or_above(model, from);
    size_t count = 0;

    while (node && count < room) {
        const struct UmbraMapping* mapping = g_tree_node_value(node);

        into[count++] = *mapping;
        node = g_tree_node_next(node);
    }
    return count;
}
