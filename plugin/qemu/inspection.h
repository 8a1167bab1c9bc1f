// SPDX-License-Identifier: GPL-2.0-or-later
//
// The properties by which an operator looks into a running unit (qom-get and qom-set):
//
//   statistics        counters, as one object
//   statistics-clear  true sets them to 0
//   stats-write       true writes them to stats-file
//   verify            the guest's tables compared with the host's mappings
#ifndef UMBRA_QEMU_INSPECTION_H
#define UMBRA_QEMU_INSPECTION_H

#include "plugin/qemu/compat.h"

/* To be called once, for the class of umbra-viommu. */
void umbra_inspection_add(ObjectClass* klass);

/* Prints each property and its purpose. */
void umbra_inspection_print_help(FILE* out);

#endif
