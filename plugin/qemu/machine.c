// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/machine.h"

#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "hw/i386/pc.h"
#include "hw/pci-host/q35.h"
#include "hw/pci/pci.h"
#include "hw/pci/pci_bus.h"
#include "kvm/kvm_i386.h"
#include "plugin/qemu/irqchip_option.h"
#include "plugin/qemu/viommu_name.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "system/kvm.h"
#include "system/system.h"

/* Without KVM the option has no effect, but it contradicts intremap=on all the same: with KVM the
 * same command line would not start. */
static bool whole_kernel_irqchip(void) {
    return kvm_enabled() ? kvm_irqchip_in_kernel() && !kvm_irqchip_is_split()
                         : umbra_whole_kernel_irqchip_wanted();
}

/* The type of a device that is there already and keeps the view of memory that it chose when it was
 * made, so without the unit. All other devices choose again when the machine is complete. NULL if
 * there is none. */
static const char* device_that_bypasses(void) {
    static const char* const types[] = {"vfio-pci", "vfio-user-pci"};

    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        bool several = false;

        if (object_resolve_path_type("", types[i], &several) != NULL || several) {
            return types[i];
        }
    }
    return NULL;
}

bool umbra_machine_check(const X86IOMMUState* iommu, Error** errp) {
    const char* bypassing = device_that_bypasses();

    if (!object_resolve_path_type("", TYPE_Q35_HOST_DEVICE, NULL)) {
        error_setg(errp, TYPE_UMBRA_VIOMMU " needs the q35 machine: start QEMU with -M q35");
        return false;
    }
    if (iommu->intr_supported == ON_OFF_AUTO_ON && whole_kernel_irqchip()) {
        error_setg(
            errp,
            "intremap=on cannot work with kernel-irqchip=on, which gives KVM the whole interrupt controller: start QEMU with -M q35,kernel-irqchip=split, or " TYPE_UMBRA_VIOMMU
            " with intremap=off");
        return false;
    }
    if (bypassing != NULL) {
        error_setg(
            errp,
            "-device " TYPE_UMBRA_VIOMMU
            " must come before every -device %s: move it, or let the plugin make it (-plugin file=...,device=on)",
            bypassing);
        return false;
    }
    return true;
}

/* The DMAR table says that every device is behind the unit. A guest would set up translations for
 * devices that do not use them. */
static void check_host_bridges(Notifier* notifier, void* unused) {
    PCIBus* root_bus = PC_MACHINE(qdev_get_machine())->pcibus;
    PCIBus* bus;

    if (pci_bus_bypass_iommu(root_bus)) {
        error_report(
            TYPE_UMBRA_VIOMMU
            ": devices of the main bus bypass it: leave -M default_bus_bypass_iommu=on out");
        exit(EXIT_FAILURE);
    }
    QLIST_FOREACH(bus, &root_bus->child, sibling) {
        if (pci_bus_is_root(bus) && pci_bus_bypass_iommu(bus)) {
            error_report(
                TYPE_UMBRA_VIOMMU
                ": devices of bus '%s' bypass it: leave bypass_iommu=on out where that bus is made",
                BUS(bus)->name);
            exit(EXIT_FAILURE);
        }
    }
}

void umbra_machine_check_when_complete(void) {
    static Notifier complete = {.notify = check_host_bridges};

    qemu_add_machine_init_done_notifier(&complete);
}

unsigned umbra_machine_address_width(void) {
    enum { NARROWEST = 36, WIDEST = 52 };
    unsigned width = WIDEST;

    if (first_cpu != NULL && object_property_find(OBJECT(first_cpu), "phys-bits")) {
        width = (unsigned)object_property_get_uint(OBJECT(first_cpu), "phys-bits", &error_abort);
    }
    return MIN(MAX(width, NARROWEST), WIDEST);
}

/* QEMU's own controller, which TCG uses, takes them. */
bool umbra_machine_switch_on_wide_interrupts(void) {
    return kvm_enabled() ? kvm_irqchip_is_split() && kvm_enable_x2apic() : true;
}
