// SPDX-License-Identifier: GPL-2.0-or-later
//
// Devices that work only if they are told of every mapping that the guest makes: those whose DMA
// does not come through QEMU. Without caching mode the guest does not tell, so they have to be
// refused before it runs. When the guest switches translation on it is too late: QEMU's VFIO code
// then ends the process.
#ifndef UMBRA_QEMU_MAP_LISTENERS_H
#define UMBRA_QEMU_MAP_LISTENERS_H

/* From here on refuses each such device that the command line or the monitor asks for, and ends
 * QEMU with a message if there is one once the machine is complete. Once, with the big lock. */
void umbra_refuse_map_listeners(void);

#endif
