// SPDX-License-Identifier: GPL-2.0-or-later
//
// The ACPI table by which firmware tells the guest where the remapping unit is and which devices
// are behind it (DMA Remapping Reporting; specification 8).
#ifndef UMBRA_QEMU_DMAR_TABLE_H
#define UMBRA_QEMU_DMAR_TABLE_H

#include "plugin/qemu/compat.h"

typedef struct UmbraDmarTable {
    uint64_t register_base;
    unsigned host_address_width; /* bits */
    bool interrupt_remapping;
    bool address_translation_services; /* root ports pass translated requests on */
} UmbraDmarTable;

/* Adds the table to those that the guest's firmware finds. To be called before the machine is
 * complete. False with an error if the host refuses a temporary file in memory. */
bool umbra_dmar_table_add(const UmbraDmarTable* table, Error** errp);

#endif
