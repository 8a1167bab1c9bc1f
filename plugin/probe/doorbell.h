/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The doorbell of the probe: writes a register of another device from inside QEMU, and times each
 * write (registers.h).
 *
 * Called with QEMU's big lock held. A command writes at most 65,536 times, and stops after 10 s.
 */
#ifndef UMBRA_PLUGIN_PROBE_DOORBELL_H
#define UMBRA_PLUGIN_PROBE_DOORBELL_H

#include "plugin/qemu/compat.h"

/* The registers of the same names. */
struct UmbraProbeDoorbell {
    uint64_t address;
    uint64_t width;
    uint64_t value;
    uint64_t step;
    uint64_t wrap;
    uint64_t done;
    uint64_t failed;
    uint64_t ns;
    uint64_t ns_min;
    uint64_t ns_max;
    uint64_t start;
};

/* Writes `count` times. The times of the first writes go into `window`, which has
 * UMBRA_PROBE_WINDOW_SIZE bytes. */
void umbra_probe_doorbell_ring(struct UmbraProbeDoorbell* doorbell, uint8_t* window,
                               uint64_t count);

#endif /* UMBRA_PLUGIN_PROBE_DOORBELL_H */
