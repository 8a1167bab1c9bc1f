// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/device_refusal.h"

#include "hw/pci/pci_device.h"
#include "hw/qdev-core.h"
#include "hw/virtio/virtio-pci.h"
#include "net/net.h"
#include "qapi/error.h"
#include "qapi/util.h"
#include "qemu/error-report.h"
#include "qobject/qbool.h"
#include "qobject/qdict.h"
#include "qobject/qstring.h"
#include "system/system.h"

typedef struct DeviceRefusal {
    DeviceListener listener;
    Notifier complete;
    bool caching_mode;
    bool device_iotlb;
} DeviceRefusal;

static DeviceRefusal the_refusal;

/* A device, or one that is to be made: a sample of its type, whose properties have their defaults
 * and the values of -global, and options that go before these. */
typedef struct Candidate {
    Object* object;
    const QDict* options; /* NULL: the device is made */
} Candidate;

static bool has_type(const Candidate* candidate, const char* type) {
    return object_dynamic_cast(candidate->object, type) != NULL;
}

static bool is_on(const Candidate* candidate, const char* property) {
    const QObject* value =
        candidate->options != NULL ? qdict_get(candidate->options, property) : NULL;
    const QString* text = qobject_to(QString, value);
    bool on = false;

    if (value == NULL) {
        return object_property_find(candidate->object, property) != NULL &&
               object_property_get_bool(candidate->object, property, NULL);
    }
    /* -device in JSON and QMP have a boolean; -device in words has "on" and the like. */
    if (text != NULL) {
        return qapi_bool_parse(property, qstring_get_str(text), &on, NULL) && on;
    }
    return qobject_to(QBool, value) != NULL && qbool_get_bool(qobject_to(QBool, value));
}

static bool has_vdpa_backend(const Candidate* candidate) {
    g_autofree char* netdev = NULL;
    const NetClientState* client;

    if (candidate->options != NULL) {
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

/* Whether the device asks for a TLB of its own. Of virtio devices only those with a vhost backend
 * have one, but the others have no use for ats=on either. */
static bool needs_device_tlb(const Candidate* candidate) {
    return has_type(candidate, TYPE_VIRTIO_PCI) && is_on(candidate, "ats") &&
           is_on(candidate, "iommu_platform");
}

static bool check(const Candidate* candidate, const char* id, Error** errp) {
    const char* name = id != NULL && *id != '\0' ? id : object_get_typename(candidate->object);

    if (!the_refusal.caching_mode && needs_maps(candidate)) {
        error_setg(
            errp,
            "device '%s' needs to know what the guest maps, and with caching-mode=off the guest does not say: start umbra-viommu with caching-mode=on",
            name);
        return false;
    }
    if (!the_refusal.device_iotlb && needs_device_tlb(candidate)) {
        error_setg(
            errp,
            "device '%s' has ats=on, and umbra-viommu offers no device-TLBs: start umbra-viommu with device-iotlb=on, or the device with ats=off",
            name);
        return false;
    }
    return true;
}

/* The class of the device that QEMU makes for -device `driver`. QEMU's other names of virtio's PCI
 * devices are theirs without "-pci". */
static ObjectClass* class_of_driver(const char* driver) {
    g_autofree char* pci = g_strconcat(driver, "-pci", NULL);
    ObjectClass* class = module_object_class_by_name(driver);

    return class != NULL ? class : module_object_class_by_name(pci);
}

/* The device that a -device option or device_add asks for. What QEMU refuses itself is let pass. */
static void check_options(const QDict* options, Error** errp) {
    const char* driver = qdict_get_try_str(options, "driver");
    ObjectClass* class = driver != NULL ? class_of_driver(driver) : NULL;
    Candidate candidate = {.options = options};

    if (class == NULL || object_class_is_abstract(class) ||
        object_class_dynamic_cast(class, TYPE_PCI_DEVICE) == NULL ||
        !DEVICE_CLASS(class)->user_creatable) {
        return;
    }
    candidate.object = object_new_with_class(class);
    check(&candidate, qdict_get_try_str(options, "id"), errp);
    object_unref(candidate.object);
}

static int check_child(Object* child, void* errp) {
    const Candidate candidate = {.object = child};

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

/* Finds devices that the machine makes of its own accord. */
static void check_complete_machine(Notifier* notifier, void* unused) {
    Error* error = NULL;

    if (object_child_foreach_recursive(object_get_root(), check_child, &error) != 0) {
        error_report_err(error);
        exit(EXIT_FAILURE);
    }
}

void umbra_device_refusal_start(const UmbraUnitProperties* properties) {
    the_refusal = (DeviceRefusal){
        .listener = {.hide_device = hide_device},
        .complete = {.notify = check_complete_machine},
        .caching_mode = properties->caching_mode,
        .device_iotlb = properties->device_iotlb,
    };
    device_listener_register(&the_refusal.listener);
    qemu_add_machine_init_done_notifier(&the_refusal.complete);
}
