# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that is built, in one place: what a launcher, a measurement or a test asks for.

`ensure_*` build what is missing, with progress on standard error, and raise UserError.
"""

import dataclasses
from pathlib import Path

from umbra.building import images, kernel, kernel_config, packages, plugin, qemu
from umbra.building.images import Images
from umbra.building.kernel_config import KernelOptions
from umbra.building.kernel_image import KernelProduct
from umbra.building.plugin import PluginOptions
from umbra.building.qemu import QemuOptions, QemuProduct
from umbra.project import TREE


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """`offline`: never touch the network. `update`: ask the archive for newer sources of QEMU and Linux."""
    offline: bool = False
    update: bool = False


def ensure_qemu(options: BuildOptions = BuildOptions()) -> QemuProduct:
    """QEMU, and the firmware that it loads."""
    packages.ensure(packages.FIRMWARE, options.offline)
    return qemu.ensure(QemuOptions.from_environment(offline=options.offline, update=options.update))


def ensure_kernel(options: BuildOptions = BuildOptions(), patched: bool = False) -> KernelProduct:
    """The stock kernel, or the one with guest-kernel-patches/ applied."""
    series = kernel_config.SERIES if patched else None
    return kernel.ensure(KernelOptions(patches=series, offline=options.offline, update=options.update))


def ensure_images(options: BuildOptions = BuildOptions()) -> Images:
    return images.ensure(images.ImageOptions(offline=options.offline, update=options.update))


def ensure_plugin(options: BuildOptions = BuildOptions()) -> Path:
    """umbra.so, brought up to date with the tree."""
    return plugin.ensure(PluginOptions(offline=options.offline, update=options.update))


def plugin_sources_present() -> bool:
    """True if this tree can build umbra.so."""
    return (TREE / "plugin" / "qemu" / "CMakeLists.txt").is_file()


def patches_present() -> bool:
    """True if this tree has patches for the guest kernel."""
    return kernel_config.SERIES.is_dir()


def built() -> dict[str, Path | None]:
    """Where everything lies that is built, by the names of scripts/env. Builds and fetches nothing."""
    emulator = qemu.find(QemuOptions.from_environment())
    stock = kernel.find(KernelOptions())
    patched = kernel.find(KernelOptions.patched()) if patches_present() else None
    initrds = images.find()
    return {
        "QEMU_SRC": emulator.src if emulator else None,
        "QEMU_BUILD": emulator.build if emulator else None,
        "QEMU_BIN": emulator.binary if emulator else None,
        "KERNEL_STOCK": stock.bzimage if stock else None,
        "KERNEL_PATCHED": patched.bzimage if patched else None,
        "GUEST_INITRD": initrds.guest_initrd if initrds else None,
        "HOST_INITRD": initrds.host_initrd if initrds else None,
        "UMBRA_PLUGIN": plugin.find(),
        "UMBRA_STAT": plugin.find_stat(),
    }
