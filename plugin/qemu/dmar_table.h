// SPDX-License-Identifier: GPL-2.0-or-later
//
// The ACPI table by which firmware tells the guest that there is a remapping unit, where it is and
// what is behind it (DMA Remapping Reporting; specification 8).
#ifndef UMBRA_QEMU_DMAR_TABLE_H
#define UMBRA_QEMU_DMAR_TABLE_H

#include "plugin/qemu/compat.h"

typedef struct UmbraDmarTable {
    uint64_t register_base;
    unsigned host_address_width; /* bits */
    bool interrupt_remapping;
    bool address_translation_services; /* root ports pass translated requests on */
} UmbraDmarTable;

/* Adds the table to those that the guest's firmware will find. To be called before the machine is
 * complete. False with *errp set if the host refuses a temporary file in memory. */
bool umbra_dmar_table_add(const UmbraDmarTable* table, Error** errp);

#endif
