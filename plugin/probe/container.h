/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A VFIO container without a kernel behind it: the maps and unmaps of a vIOMMU go to the model of a
 * listener. With such a container the probe is, to the vIOMMU, a VFIO device like any other. QEMU's
 * own VFIO code has no part in it.
 */
#ifndef UMBRA_PLUGIN_PROBE_CONTAINER_H
#define UMBRA_PLUGIN_PROBE_CONTAINER_H

#include "plugin/qemu/compat.h"

#include "hw/pci/pci_device.h"
#include "plugin/probe/listener.h"

struct UmbraProbeContainer;

/* What the host of the container can map, besides its interrupt range. */
struct UmbraProbeHost {
    uint8_t address_width; /* bits, 1 to 64 */
    uint64_t hole_first;   /* IOVAs that the host reserves; 0 bytes: none */
    uint64_t hole_bytes;
};

/* Whether the width is one, and the hole lies within it. */
bool umbra_probe_host_exists(const struct UmbraProbeHost* host);

/* Registers nothing in a QEMU without VFIO. */
void umbra_probe_container_register_types(void);

/* NULL with an error in a QEMU without VFIO. `*host` is copied. `listener` has rules, is off, and
 * outlives the container, which is its container from here on. */
struct UmbraProbeContainer* umbra_probe_container_new(struct UmbraProbeListener* listener,
                                                      const struct UmbraProbeHost* host,
                                                      Error** errp);
/* Offers the container to the vIOMMU, after its listener has started, as VFIO does. */
bool umbra_probe_container_attach(struct UmbraProbeContainer* container, PCIDevice* device,
                                  Error** errp);
void umbra_probe_container_detach(struct UmbraProbeContainer* container, PCIDevice* device);
/* After its listener has stopped. */
void umbra_probe_container_free(struct UmbraProbeContainer* container);

#endif /* UMBRA_PLUGIN_PROBE_CONTAINER_H */
