// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/map_listeners.h"

#include "hw/qdev-core.h"
#include "net/net.h"
#include "qapi/error.h"
#include "qapi/util.h"
#include "qemu/error-report.h"
#include "qobject/qbool.h"
#include "qobject/qdict.h"
#include "qobject/qstring.h"
#include "system/system.h"

/* A device, or the options of one that is to be made. */
typedef struct Candidate {
    ObjectClass* class;
    Object* object;       /* NULL: not made yet */
    const QDict* options; /* of a device that is not made yet */
} Candidate;

static bool has_type(const Candidate* candidate, const char* type) {
    return object_class_dynamic_cast(candidate->class, type) != NULL;
}

static bool is_on(const Candidate* candidate, const char* property) {
    const QObject* value;
    const QString* text;
    bool on = false;

    if (candidate->object != NULL) {
        return object_property_find(candidate->object, property) != NULL &&
               object_property_get_bool(candidate->object, property, NULL);
    }
    /* -device in JSON and QMP have a boolean; -device in words has "on" and the like. */
    value = qdict_get(candidate->options, property);
    text = qobject_to(QString, value);
    if (text != NULL) {
        return qapi_bool_parse(property, qstring_get_str(text), &on, NULL) && on;
    }
    return value != NULL && qobject_to(QBool, value) != NULL &&
           qbool_get_bool(qobject_to(QBool, value));
}

static bool has_vdpa_backend(const Candidate* candidate) {
    g_autofree char* netdev = NULL;
    const NetClientState* client;

    if (candidate->object == NULL) {
        netdev = g_strdup(qdict_get_try_str(candidate->options, "netdev"));
    } else if (object_property_find(candidate->object, "netdev") != NULL) {
        netdev = object_property_get_str(candidate->object, "netdev", NULL);
    }
    client = netdev != NULL ? qemu_find_netdev(netdev) : NULL;
    return client != NULL && client->info->type == NET_CLIENT_DRIVER_VHOST_VDPA;
}

static bool needs_maps(const Candidate* candidate) {
    if (has_type(candidate, "umbra-probe")) {
        return is_on(candidate, "listen") && !is_on(candidate, "unmaps-only");
    }
    /* The backend of a virtio device is behind the unit only if the device is. */
    return has_type(candidate, "vfio-pci") || has_type(candidate, "vfio-user-pci") ||
           ((has_type(candidate, "vhost-vdpa-device-pci-base") || has_vdpa_backend(candidate)) &&
            is_on(candidate, "iommu_platform"));
}

static bool check(const Candidate* candidate, const char* id, Error** errp) {
    if (!needs_maps(candidate)) {
        return true;
    }
    error_setg(
        errp,
        "device '%s' needs to know what the guest maps, and with caching-mode=off the guest does not say: start umbra-viommu with caching-mode=on",
        id != NULL && *id != '\0' ? id : object_class_get_name(candidate->class));
    return false;
}

/* The device that a -device option or device_add asks for. */
static bool check_options(const QDict* options, Error** errp) {
    const char* driver = qdict_get_try_str(options, "driver");
    const Candidate candidate = {
        .class = driver != NULL ? module_object_class_by_name(driver) : NULL,
        .options = options,
    };

    return candidate.class == NULL || check(&candidate, qdict_get_try_str(options, "id"), errp);
}

static int check_child(Object* child, void* errp) {
    const Candidate candidate = {.class = object_get_class(child), .object = child};

    return object_dynamic_cast(child, TYPE_DEVICE) == NULL ||
                   check(&candidate, DEVICE(child)->id, errp)
               ? 0
               : 1;
}

/* QEMU asks about every device that it is about to make, whether to hide it. None is hidden; an
 * error refuses the device. */
static bool hide_device(DeviceListener* listener, const QDict* options, bool from_json,
                        Error** errp) {
    check_options(options, errp);
    return false;
}

/* Finds devices that need maps because of -global or a default, not because of an option of their
 * own. */
static void check_complete_machine(Notifier* notifier, void* unused) {
    Error* error = NULL;

    if (object_child_foreach_recursive(object_get_root(), check_child, &error) != 0) {
        error_report_err(error);
        exit(EXIT_FAILURE);
    }
}

void umbra_refuse_map_listeners(void) {
    static DeviceListener listener = {.hide_device = hide_device};
    static Notifier complete = {.notify = check_complete_machine};

    device_listener_register(&listener);
    qemu_add_machine_init_done_notifier(&complete);
}
