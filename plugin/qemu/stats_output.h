/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Where a unit's snapshots go (plugin/telemetry/umbra.proto): into a file, when QEMU exits and on
 * demand, and as a stream over a character device. None of this is on the path of an invalidation
 * or of DMA, and nothing waits for a reader.
 *
 * The stream carries whole messages. The part of a message that the reader's socket does not take
 * is kept and sent when the socket has room. Until then no other message is begun; those that would
 * be due are dropped and counted. A reader that connects begins with a whole message. While there
 * is no reader, no snapshot is taken.
 */
#ifndef UMBRA_QEMU_STATS_OUTPUT_H
#define UMBRA_QEMU_STATS_OUTPUT_H

#include "plugin/qemu/compat.h"

#include "chardev/char-fe.h"
#include "plugin/bridge/statistics.h"
#include "qemu/notify.h"
#include "qemu/timer.h"

/* The operator's choices. */
typedef struct UmbraStatsProperties {
    char* file;        /* NULL: none */
    char* chardev;     /* id; NULL: none */
    uint32_t interval; /* milliseconds */
} UmbraStatsProperties;

typedef struct UmbraStatsOutput {
    const UmbraStatsProperties* properties;
    const UmbraUnit* unit;
    const char* name;
    char* path; /* absolute: QEMU changes its folder when it becomes a daemon */
    uint64_t files_written;
    Notifier exit;

    UmbraCharFrontend stream;
    QEMUTimer* timer;
    uint64_t sequence;
    uint64_t dropped;
    /* The message under way; NULL between messages. */
    char* message;
    size_t size;
    size_t sent;
    guint watch; /* event source that waits for room in the stream; 0: none */
} UmbraStatsOutput;

/* Checks the properties and begins. `properties`, `unit` and `name` outlive the output. On failure
 * nothing is left behind. */
bool umbra_stats_output_start(UmbraStatsOutput* output, const UmbraStatsProperties* properties,
                              const UmbraUnit* unit, const char* name, Error** errp);

/* Replaces the file by one with a snapshot of now. */
bool umbra_stats_output_write_file(UmbraStatsOutput* output, Error** errp);

#endif
