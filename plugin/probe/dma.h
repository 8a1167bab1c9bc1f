/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * DMA of the probe, as its registers ask for it (registers.h). Transfers use the function's own
 * requester id.
 *
 * Called with QEMU's big lock held. A command moves at most 64 MiB.
 */
#ifndef UMBRA_PLUGIN_PROBE_DMA_H
#define UMBRA_PLUGIN_PROBE_DMA_H

#include "plugin/qemu/compat.h"

#include "hw/pci/pci_device.h"

/* The registers of the same names. */
struct UmbraProbeDma {
    uint64_t iova;
    uint64_t length;
    uint64_t pattern;
    uint64_t status;
    uint64_t done;
};

/* Carries out `command` (UMBRA_PROBE_DMA_COMMAND_*) for `pci`, and sets `status` and `done`.
 * `window` has UMBRA_PROBE_WINDOW_SIZE bytes. */
void umbra_probe_dma_run(struct UmbraProbeDma* dma, PCIDevice* pci, uint8_t* window,
                         uint64_t command);

#endif /* UMBRA_PLUGIN_PROBE_DMA_H */
