// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/notifier_mapper.h"

#include "plugin/qemu/iommu_notify.h"
#include "plugin/qemu/vfio_container.h"

/* Whether `notifier` is told of maps in this way. */
static bool is_served(const UmbraDeviceSpace* space, const IOMMUNotifier* notifier) {
    return (notifier->notifier_flags & IOMMU_NOTIFIER_MAP) &&
           !umbra_vfio_container_owns(space, notifier);
}

static bool has_served(UmbraDeviceSpace* space) {
    IOMMUNotifier* notifier;

    IOMMU_NOTIFIER_FOREACH(notifier, &space->translated) {
        if (is_served(space, notifier)) {
            return true;
        }
    }
    return false;
}

static uint16_t notifiers_source(void* opaque) {
    return umbra_device_space_source(opaque);
}

static void notify_maps(IOMMUNotifier* notifier, const UmbraHostMapping* mappings, size_t count) {
    for (size_t i = 0; i < count; i++) {
        umbra_iommu_notify(notifier, mappings[i].iova, mappings[i].bytes, mappings[i].guest,
                           (IOMMUAccessFlags)mappings[i].access);
    }
}

static size_t notifiers_map(void* opaque, const UmbraHostMapping* mappings, size_t count,
                            int* error) {
    UmbraDeviceSpace* space = opaque;
    IOMMUNotifier* notifier;

    switch (space->listening) {
        case UMBRA_LISTENING_CHANGING:
            break;
        case UMBRA_LISTENING_REPLAYING:
            notify_maps(space->newcomer, mappings, count);
            break;
        case UMBRA_LISTENING_SETTLING:
        case UMBRA_LISTENING_STEADY:
        case UMBRA_LISTENING_SWITCHING:
            IOMMU_NOTIFIER_FOREACH(notifier, &space->translated) {
                if (notifier != space->newcomer && is_served(space, notifier)) {
                    notify_maps(notifier, mappings, count);
                }
            }
            break;
    }
    return count;
}

static int notifiers_unmap(void* opaque, uint64_t iova, uint64_t bytes) {
    UmbraDeviceSpace* space = opaque;
    IOMMUNotifier* notifier;

    if (space->listening == UMBRA_LISTENING_REPLAYING) {
        umbra_iommu_notify(space->newcomer, iova, bytes, 0, IOMMU_NONE);
        return 0;
    }
    IOMMU_NOTIFIER_FOREACH(notifier, &space->translated) {
        if (is_served(space, notifier)) {
            umbra_iommu_notify(notifier, iova, bytes, 0, IOMMU_NONE);
        }
    }
    return 0;
}

static void notifiers_set_mode(void* opaque, UmbraDmaMode mode) {}

static void add_notifiers(UmbraDeviceSpace* space) {
    const UmbraHostMapper mapper = {
        .opaque = space,
        .source = notifiers_source,
        .map = notifiers_map,
        .unmap = notifiers_unmap,
        .set_mode = notifiers_set_mode,
    };

    space->shadow = umbra_shadow_add(space->context->unit, &mapper);
}

static void drop_notifiers(UmbraDeviceSpace* space) {
    UmbraShadowDevice* shadow = g_steal_pointer(&space->shadow);

    if (shadow != NULL) {
        umbra_shadow_remove(space->context->unit, shadow);
    }
}

void umbra_notifier_mapper_review(UmbraDeviceSpace* space) {
    const bool wanted = has_served(space);

    if (space->listening == UMBRA_LISTENING_SWITCHING || wanted == (space->shadow != NULL)) {
        return;
    }
    if (wanted) {
        add_notifiers(space);
    } else {
        drop_notifiers(space);
    }
}

void umbra_notifier_mapper_listeners_changed(UmbraDeviceSpace* space) {
    const UmbraListening before = space->listening;

    if (before != UMBRA_LISTENING_SWITCHING) {
        space->listening = UMBRA_LISTENING_CHANGING;
        umbra_notifier_mapper_review(space);
        space->listening = before;
    }
}

void umbra_notifier_mapper_replay(UmbraDeviceSpace* space, IOMMUNotifier* notifier) {
    /* While the view is switched nothing is mapped: every listener is told of the maps to come. */
    if (space->listening == UMBRA_LISTENING_SWITCHING || !is_served(space, notifier)) {
        return;
    }
    umbra_notifier_mapper_listeners_changed(space);
    /* VFIO's dirty tracking asks with a notifier that it has not registered. */
    if (space->shadow == NULL) {
        return;
    }
    space->newcomer = notifier;
    /* Work that is left over of the guest's invalidations concerns the listeners that there are. If
     * the replay did it, only the new listener would hear of it. */
    space->listening = UMBRA_LISTENING_SETTLING;
    umbra_shadow_settle(space->context->unit);

    space->listening = UMBRA_LISTENING_REPLAYING;
    umbra_shadow_replay(space->context->unit, space->shadow);
    space->listening = UMBRA_LISTENING_STEADY;
    space->newcomer = NULL;
}
