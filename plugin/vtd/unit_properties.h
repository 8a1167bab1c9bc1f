// SPDX-License-Identifier: GPL-2.0-or-later
//
// The properties of a unit that the person who launches the machine chooses.
#pragma once

namespace umbra::vtd {

// Everything else that CAP and ECAP report is fixed (capabilities.cc goes through them field by
// field).
struct UnitProperties {
    // CAP.CM: the guest must invalidate after every change of a table, also after making an absent
    // entry present. The shadow needs it.
    bool caching_mode = true;
    // Widest IOVA in bits: 39 (three-level tables only) or 48 (three- and four-level tables).
    unsigned address_width = 48;
    // Width of guest-physical addresses in bits, 32 to 52: what the DMAR table reports as Host
    // Address Width. Address bits above it are reserved in every table entry and register.
    unsigned host_address_width = 48;
    // Whether DMA can be translated. If not, CAP.SAGAW is 0, translation cannot be switched on, and
    // the unit is there for interrupt remapping alone.
    bool dma_translation = true;
    bool interrupt_remapping = true;       // ECAP.IR
    bool extended_interrupt_mode = false;  // ECAP.EIM: 32-bit APIC ids; needs interrupt_remapping
    bool pass_through = true;              // ECAP.PT
    bool device_iotlb = false;             // ECAP.DT: devices may have TLBs of their own (ATS)
    bool snoop_control = false;            // ECAP.SC

    // A sentence that names the fault, or nullptr if a unit can have these properties.
    [[nodiscard]] const char* error() const;
};

}  // namespace umbra::vtd
