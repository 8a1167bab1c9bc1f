// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/dmar_table.h"

#include <sys/mman.h>

#include "hw/acpi/acpi.h"
#include "hw/acpi/aml-build.h"
#include "hw/i386/acpi-common.h"
#include "hw/i386/pc.h"
#include "hw/pci-host/q35.h"
#include "hw/pci/pci.h"
#include "qapi/error.h"
#include "qemu/option.h"

enum {
    DMAR_FLAG_INTERRUPT_REMAPPING = 1 << 0,

    REMAPPING_STRUCTURE_DRHD = 0,
    REMAPPING_STRUCTURE_ATSR = 2,

    /* DRHD: every PCI device of the segment that no other unit names is behind this one. */
    DRHD_INCLUDE_ALL = 1 << 0,
    /* ATSR: all root ports of the segment. */
    ATSR_ALL_PORTS = 1 << 0,

    DEVICE_SCOPE_IOAPIC = 3,
};

static void append_zeros(GArray* body, unsigned count) {
    while (count-- > 0) {
        build_append_int_noprefix(body, 0, 1);
    }
}

/* The I/O APIC is no PCI function. It sends its messages under a requester id of its own, which
 * this scope makes known (specification 8.3.1). */
static void append_ioapic_scope(GArray* body) {
    build_append_int_noprefix(body, DEVICE_SCOPE_IOAPIC, 1);
    build_append_int_noprefix(body, 8, 1); /* length: one path entry */
    append_zeros(body, 2);
    build_append_int_noprefix(body, ACPI_BUILD_IOAPIC_ID, 1);
    build_append_int_noprefix(body, Q35_PSEUDO_BUS_PLATFORM, 1);
    build_append_int_noprefix(body, PCI_SLOT(Q35_PSEUDO_DEVFN_IOAPIC), 1);
    build_append_int_noprefix(body, PCI_FUNC(Q35_PSEUDO_DEVFN_IOAPIC), 1);
}

/* Everything after the common ACPI header. */
static void append_body(GArray* body, const UmbraDmarTable* table) {
    build_append_int_noprefix(body, table->host_address_width - 1, 1);
    build_append_int_noprefix(body, table->interrupt_remapping ? DMAR_FLAG_INTERRUPT_REMAPPING : 0,
                              1);
    append_zeros(body, 10);

    build_append_int_noprefix(body, REMAPPING_STRUCTURE_DRHD, 2);
    build_append_int_noprefix(body, 16 + 8, 2); /* length: header and one device scope */
    build_append_int_noprefix(body, DRHD_INCLUDE_ALL, 1);
    build_append_int_noprefix(body, 0, 1); /* size of the register set: 2^0 pages */
    build_append_int_noprefix(body, 0, 2); /* PCI segment */
    build_append_int_noprefix(body, table->register_base, 8);
    append_ioapic_scope(body);

    if (table->address_translation_services) {
        build_append_int_noprefix(body, REMAPPING_STRUCTURE_ATSR, 2);
        build_append_int_noprefix(body, 8, 2); /* length */
        build_append_int_noprefix(body, ATSR_ALL_PORTS, 1);
        append_zeros(body, 1);
        build_append_int_noprefix(body, 0, 2); /* PCI segment */
    }
}

static QemuOptsList table_options = {
    .name = "umbra-acpi-table",
    .head = QTAILQ_HEAD_INITIALIZER(table_options.head),
    .desc = {{.name = NULL}},
};

/* QEMU takes a table from its user only as a file, so the body goes through a file in memory. QEMU
 * makes the header (length, checksum, ids) from the options. */
bool umbra_dmar_table_add(const UmbraDmarTable* table, Error** errp) {
    ERRP_GUARD();
    g_autofree char* path = NULL;
    GArray* body = g_array_new(false, true, 1);
    QemuOpts* options;
    int fd;

    append_body(body, table);

    fd = memfd_create("umbra-dmar", MFD_CLOEXEC);
    if (fd < 0 || write(fd, body->data, body->len) != (ssize_t)body->len) {
        error_setg_errno(errp, errno, "cannot make a file in memory for the DMAR table");
    } else {
        path = g_strdup_printf("/proc/self/fd/%d", fd);
        options = qemu_opts_create(&table_options, NULL, 0, &error_abort);
        qemu_opt_set(options, "sig", "DMAR", &error_abort);
        qemu_opt_set(options, "rev", "1", &error_abort);
        qemu_opt_set(options, "oem_id", "UMBRA", &error_abort);
        qemu_opt_set(options, "oem_table_id", "UMBRAVTD", &error_abort);
        qemu_opt_set(options, "data", path, &error_abort);
        acpi_table_add(options, errp);
        qemu_opts_del(options);
    }
    if (fd >= 0) {
        close(fd);
    }
    g_array_free(body, true);
    return *errp == NULL;
}
