/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugin/qemu/compat.h"

#include "plugin/probe/dma.h"

#include "plugin/probe/registers.h"
#include "qemu/bswap.h"
#include "qemu/units.h"

#define DMA_LENGTH_MAX (64 * MiB)

static MemTxResult transfer_piece(PCIDevice* pci, uint64_t iova, void* buffer, uint64_t length,
                                  DMADirection direction) {
    const MemTxAttrs attrs = {.requester_id = pci_requester_id(pci)};

    return pci_dma_rw(pci, iova, buffer, length, direction, attrs);
}

static void fill_pattern(uint8_t* buffer, size_t length, uint64_t pattern) {
    uint8_t bytes[sizeof(pattern)];

    stq_le_p(bytes, pattern);
    for (size_t i = 0; i < length; i++) {
        buffer[i] = bytes[i % sizeof(bytes)];
    }
}

/* FILL and CHECK: pieces that end at 4 KiB boundaries of the IOVA, so that each lies in one page.
 */
static void run_pattern(struct UmbraProbeDma* dma, PCIDevice* pci, bool check) {
    uint8_t expected[UMBRA_PROBE_WINDOW_SIZE + sizeof(uint64_t)];
    uint8_t actual[UMBRA_PROBE_WINDOW_SIZE];

    fill_pattern(expected, sizeof(expected), dma->pattern);
    while (dma->done < dma->length) {
        const uint64_t iova = dma->iova + dma->done;
        const uint64_t to_boundary = UMBRA_PROBE_WINDOW_SIZE - iova % UMBRA_PROBE_WINDOW_SIZE;
        const uint64_t piece = MIN(to_boundary, dma->length - dma->done);
        uint8_t* pattern = expected + dma->done % sizeof(uint64_t);
        MemTxResult result;

        if (check) {
            result = transfer_piece(pci, iova, actual, piece, DMA_DIRECTION_TO_DEVICE);
        } else {
            result = transfer_piece(pci, iova, pattern, piece, DMA_DIRECTION_FROM_DEVICE);
        }
        if (result != MEMTX_OK) {
            dma->status = UMBRA_PROBE_DMA_STATUS_FAULT;
            return;
        }
        if (check && memcmp(actual, pattern, piece) != 0) {
            dma->status = UMBRA_PROBE_DMA_STATUS_MISMATCH;
            return;
        }
        dma->done += piece;
    }
    dma->status = UMBRA_PROBE_DMA_STATUS_OK;
}

static void run_window(struct UmbraProbeDma* dma, PCIDevice* pci, uint8_t* window,
                       DMADirection direction) {
    if (transfer_piece(pci, dma->iova, window, dma->length, direction) != MEMTX_OK) {
        dma->status = UMBRA_PROBE_DMA_STATUS_FAULT;
        return;
    }
    dma->done = dma->length;
    dma->status = UMBRA_PROBE_DMA_STATUS_OK;
}

void umbra_probe_dma_run(struct UmbraProbeDma* dma, PCIDevice* pci, uint8_t* window,
                         uint64_t command) {
    const bool pattern =
        command == UMBRA_PROBE_DMA_COMMAND_FILL || command == UMBRA_PROBE_DMA_COMMAND_CHECK;
    const uint64_t length_max = pattern ? DMA_LENGTH_MAX : UMBRA_PROBE_WINDOW_SIZE;

    dma->done = 0;
    dma->status = UMBRA_PROBE_DMA_STATUS_REFUSED;
    if (dma->length == 0 || dma->length > length_max) {
        return;
    }
    switch (command) {
        case UMBRA_PROBE_DMA_COMMAND_READ:
            run_window(dma, pci, window, DMA_DIRECTION_TO_DEVICE);
            break;
        case UMBRA_PROBE_DMA_COMMAND_WRITE:
            run_window(dma, pci, window, DMA_DIRECTION_FROM_DEVICE);
            break;
        case UMBRA_PROBE_DMA_COMMAND_FILL:
            run_pattern(dma, pci, false);
            break;
        case UMBRA_PROBE_DMA_COMMAND_CHECK:
            run_pattern(dma, pci, true);
            break;
        default:
            break;
    }
}
