// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/stats_output.h"

#include "plugin/qemu/viommu_name.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "system/system.h"

enum { SHORTEST_INTERVAL_MS = 10, LONGEST_INTERVAL_MS = 3600000 };

/* ---- The file ---- */

/* Opens a new file beside `path`, and sets *beside to its name. */
static int open_beside(const char* path, char** beside) {
    *beside = g_strdup_printf("%s.%ld.tmp", path, (long)getpid());
    return open(*beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
}

static bool fail_file(const UmbraStatsOutput* output, int error, Error** errp) {
    error_setg_errno(errp, error, "stats-file=%s cannot be written", output->properties->file);
    return false;
}

/* A file that cannot be written is reported at the start, not after days of counting. */
static bool check_file(const UmbraStatsOutput* output, Error** errp) {
    g_autofree char* beside = NULL;
    int fd;

    if (g_file_test(output->path, G_FILE_TEST_IS_DIR)) {
        return fail_file(output, EISDIR, errp);
    }
    fd = open_beside(output->path, &beside);
    if (fd < 0) {
        return fail_file(output, errno, errp);
    }
    close(fd);
    unlink(beside);
    return true;
}

bool umbra_stats_output_write_file(UmbraStatsOutput* output, Error** errp) {
    const UmbraSnapshotStamp stamp = {
        .unit = output->name,
        .sequence = output->files_written + 1,
        .dropped = output->dropped,
    };
    g_autofree char* beside = NULL;
    char* message;
    size_t size;
    int error = 0;
    int fd;

    if (output->properties->file == NULL) {
        error_setg(errp, "there is no file to write to: start QEMU with stats-file=PATH");
        return false;
    }
    fd = open_beside(output->path, &beside);
    if (fd < 0) {
        return fail_file(output, errno, errp);
    }
    message = umbra_unit_snapshot(output->unit, &stamp, &size);
    if (qemu_write_full(fd, message, size) != (ssize_t)size) {
        error = errno;
    }
    umbra_string_free(message);
    if (close(fd) != 0 && error == 0) {
        error = errno;
    }
    /* Readers see the old file or the new one, never a part. */
    if (error == 0 && rename(beside, output->path) != 0) {
        error = errno;
    }
    if (error != 0) {
        unlink(beside);
        return fail_file(output, error, errp);
    }
    output->files_written++;
    return true;
}

static void write_at_exit(Notifier* notifier, void* unused) {
    UmbraStatsOutput* output = container_of(notifier, UmbraStatsOutput, exit);
    Error* error = NULL;

    if (!umbra_stats_output_write_file(output, &error)) {
        error_reportf_err(error, TYPE_UMBRA_VIOMMU ": ");
    }
}

/* ---- The stream ---- */

static void forget_message(UmbraStatsOutput* output) {
    umbra_string_free(output->message);
    output->message = NULL;
    if (output->watch != 0) {
        g_source_remove(output->watch);
        output->watch = 0;
    }
}

static gboolean room_in_stream(void* unused, GIOCondition condition, void* opaque);

/* Sends as much as the stream takes. */
static void send_message(UmbraStatsOutput* output) {
    while (output->message != NULL) {
        const int sent =
            qemu_chr_fe_write(&output->stream, (const uint8_t*)output->message + output->sent,
                              (int)(output->size - output->sent));

        if (sent <= 0) {
            break;
        }
        output->sent += (size_t)sent;
        if (output->sent == output->size) {
            forget_message(output);
        }
    }
    /* A backend that cannot tell when it has room is tried again when the next message is due. */
    if (output->message != NULL && output->watch == 0) {
        output->watch =
            qemu_chr_fe_add_watch(&output->stream, G_IO_OUT | G_IO_HUP, room_in_stream, output);
    }
}

static gboolean room_in_stream(void* unused, GIOCondition condition, void* opaque) {
    UmbraStatsOutput* output = opaque;

    output->watch = 0;
    /* After a hang-up the backend also sends CHR_EVENT_CLOSED, which ends the message. */
    if ((condition & G_IO_HUP) == 0) {
        send_message(output);
    }
    return G_SOURCE_REMOVE;
}

static void message_due(void* opaque) {
    UmbraStatsOutput* output = opaque;

    timer_mod(output->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + output->properties->interval);
    output->sequence++;
    send_message(output);
    if (output->message != NULL) {
        output->dropped++;
        return;
    }
    const UmbraSnapshotStamp stamp = {
        .unit = output->name,
        .sequence = output->sequence,
        .interval_ns = (uint64_t)output->properties->interval * SCALE_MS,
        .dropped = output->dropped,
    };
    output->message = umbra_unit_snapshot(output->unit, &stamp, &output->size);
    output->sent = 0;
    send_message(output);
}

static void stream_event(void* opaque, QEMUChrEvent event) {
    UmbraStatsOutput* output = opaque;

    switch (event) {
        case CHR_EVENT_OPENED:
            timer_mod(output->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME));
            break;
        case CHR_EVENT_CLOSED:
            timer_del(output->timer);
            forget_message(output);
            break;
        case CHR_EVENT_BREAK:
        case CHR_EVENT_MUX_IN:
        case CHR_EVENT_MUX_OUT:
            break;
    }
}

/* Input from a reader means nothing. It is read because only then does QEMU see the reader go. */
static int stream_can_read(void* opaque) {
    return 4096;
}

static void stream_read(void* opaque, const uint8_t* data, int size) {}

static bool start_stream(UmbraStatsOutput* output, Error** errp) {
    Chardev* chardev = qemu_chr_find(output->properties->chardev);

    if (chardev == NULL) {
        error_setg(
            errp,
            "stats-chardev=%s: there is no such character device; name one with -chardev socket,id=%s,...",
            output->properties->chardev, output->properties->chardev);
        return false;
    }
    if (output->properties->interval < SHORTEST_INTERVAL_MS ||
        output->properties->interval > LONGEST_INTERVAL_MS) {
        error_setg(errp, "stats-interval=%" PRIu32 ": use %d to %d (milliseconds)",
                   output->properties->interval, SHORTEST_INTERVAL_MS, LONGEST_INTERVAL_MS);
        return false;
    }
    if (!qemu_chr_fe_init(&output->stream, chardev, errp)) {
        error_prepend(errp, "stats-chardev=%s: ", output->properties->chardev);
        return false;
    }
    output->timer = timer_new_ms(QEMU_CLOCK_REALTIME, message_due, output);
    qemu_chr_fe_set_handlers(&output->stream, stream_can_read, stream_read, stream_event, NULL,
                             output, NULL, true);
    return true;
}

bool umbra_stats_output_start(UmbraStatsOutput* output, const UmbraStatsProperties* properties,
                              const UmbraUnit* unit, const char* name, Error** errp) {
    output->properties = properties;
    output->unit = unit;
    output->name = name;
    if (output->properties->file != NULL) {
        output->path = g_canonicalize_filename(output->properties->file, NULL);
    }
    if ((output->properties->file != NULL && !check_file(output, errp)) ||
        (output->properties->chardev != NULL && !start_stream(output, errp))) {
        g_free(output->path);
        output->path = NULL;
        return false;
    }
    if (output->properties->file != NULL) {
        output->exit.notify = write_at_exit;
        qemu_add_exit_notifier(&output->exit);
    }
    return true;
}
