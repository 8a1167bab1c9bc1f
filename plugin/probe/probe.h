/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * umbra-probe, a PCI function that does DMA, sends MSIs, and listens to a vIOMMU as VFIO would.
 * registers.h is what a guest sees of it.
 */
#ifndef UMBRA_PLUGIN_PROBE_PROBE_H
#define UMBRA_PLUGIN_PROBE_PROBE_H

#define TYPE_UMBRA_PROBE "umbra-probe"

/* Registers the QOM type. Called once, by the plugin's entry point. */
void umbra_probe_register_types(void);

#endif /* UMBRA_PLUGIN_PROBE_PROBE_H */
