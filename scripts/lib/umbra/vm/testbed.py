# SPDX-License-Identifier: GPL-2.0-or-later
"""The testbed's parts, built once and used for any number of testbed hosts."""

import dataclasses
from pathlib import Path

from umbra.building import products
from umbra.building.images import Images
from umbra.building.kernel_image import KernelProduct
from umbra.building.products import BuildOptions
from umbra.building.qemu import QemuProduct
from umbra.vm.config import kvm_runs_guests
from umbra.vm.host import TestbedHost, TestbedOptions


@dataclasses.dataclass(frozen=True)
class Testbed:
    """`kernel` is the stock one, which the testbed host always runs; a guest may have another."""
    qemu: QemuProduct
    kernel: KernelProduct
    images: Images

    @classmethod
    def ensure(cls, options: BuildOptions) -> "Testbed":
        """Builds what is missing."""
        return cls(products.ensure_qemu(options), products.ensure_kernel(options), products.ensure_images(options))

    def host(self, rundir: Path, append: str = "") -> TestbedHost:
        """A host that has not been started. `append`: further words for its kernel."""
        return TestbedHost(rundir, TestbedOptions(self.qemu.binary, self.kernel.bzimage, self.images.host_initrd,
                                                  kvm_runs_guests(), append))
