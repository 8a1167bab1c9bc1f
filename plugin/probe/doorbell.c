/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugin/qemu/compat.h"

#include "plugin/probe/doorbell.h"

#include "plugin/probe/registers.h"
#include "qemu/bswap.h"
#include "qemu/timer.h"

#define COUNT_MAX 65536
#define BUDGET_NS (10 * NANOSECONDS_PER_SECOND)
#define SAMPLES (UMBRA_PROBE_WINDOW_SIZE / sizeof(uint64_t))

void umbra_probe_doorbell_ring(struct UmbraProbeDoorbell* doorbell, uint8_t* window,
                               uint64_t count) {
    uint8_t bytes[sizeof(uint64_t)];

    doorbell->done = 0;
    doorbell->failed = 0;
    doorbell->ns = 0;
    doorbell->ns_min = 0;
    doorbell->ns_max = 0;
    doorbell->start = (uint64_t)get_clock();
    if (doorbell->width != 4 && doorbell->width != 8) {
        return;
    }
    count = MIN(count, COUNT_MAX);
    while (doorbell->done < count && doorbell->ns < BUDGET_NS) {
        uint64_t elapsed;
        int64_t start;
        MemTxResult result;

        stq_le_p(bytes, doorbell->value);
        start = get_clock();
        result = address_space_write(&address_space_memory, doorbell->address,
                                     MEMTXATTRS_UNSPECIFIED, bytes, doorbell->width);
        elapsed = (uint64_t)(get_clock() - start);

        if (doorbell->done < SAMPLES) {
            stq_le_p(window + doorbell->done * sizeof(uint64_t), elapsed);
        }
        if (doorbell->done == 0 || elapsed < doorbell->ns_min) {
            doorbell->ns_min = elapsed;
        }
        doorbell->ns_max = MAX(doorbell->ns_max, elapsed);
        doorbell->ns += elapsed;
        doorbell->failed += result != MEMTX_OK;
        doorbell->done++;
        doorbell->value += doorbell->step;
        if (doorbell->wrap != 0) {
            doorbell->value %= doorbell->wrap;
        }
    }
}
