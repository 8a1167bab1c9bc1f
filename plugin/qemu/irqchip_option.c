// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/qemu/irqchip_option.h"

#include "qemu/accel.h"
#include "qom/object.h"
#include "system/kvm.h"
#include "system/kvm_int.h"

#define TYPE_KVM_ACCELERATOR ACCEL_CLASS_NAME("kvm")

bool umbra_whole_kernel_irqchip_wanted(void) {
    Object* accelerator;
    bool wanted;

    if (object_class_by_name(TYPE_KVM_ACCELERATOR) == NULL) {
        return false;
    }
    /* An accelerator that is never started takes the property as the real one does. */
    accelerator = object_new(TYPE_KVM_ACCELERATOR);
    object_apply_compat_props(accelerator);
    /* Unless the option was given, `split` is still "auto". */
    wanted = ((const KVMState*)accelerator)->kernel_irqchip_allowed &&
             ((const KVMState*)accelerator)->kernel_irqchip_split == ON_OFF_AUTO_OFF;
    object_unref(accelerator);
    return wanted;
}
