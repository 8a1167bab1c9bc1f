# SPDX-License-Identifier: GPL-2.0-or-later
"""build-kernel: builds the kernel of the VMs."""

import shutil
from pathlib import Path

from umbra.building import kernel, kernel_config, patches
from umbra.building.kernel_config import KernelOptions
from umbra.commands import common


def main() -> None:
    parser = common.Parser(
        prog="build-kernel", description="Builds the kernel of the VMs: Linux 6.12 from Debian, allnoconfig plus "
        "qemu-configs/kernel/{base,vfio-host,guest}.config, and the guest's test module.",
        epilog="Example: scripts/build-kernel --patches guest-kernel-patches/linux-6.12 --config debug")
    parser.add_argument("--patches", metavar="FOLDER", type=Path, help="apply a series of patches (default: none)")
    parser.add_argument("--config", metavar="FRAGMENT", nargs="+", action="extend", default=[],
                        help="further fragments: files, or names in qemu-configs/kernel (debug)")
    parser.add_argument("--source", metavar="FOLDER", type=Path,
                        help="build this kernel tree instead; it is not written to")
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="also copy the product here")
    common.add_common_options(parser)
    arguments = parser.parse_args()
    if arguments.source and arguments.patches:
        parser.error("--patches does not go with --source: apply the series in your own tree")
    if arguments.source and not arguments.source.is_dir():
        parser.error(f"--source {arguments.source} does not exist")
    if arguments.patches:
        patches.series(arguments.patches)
    product = kernel.ensure(KernelOptions(
        patches=arguments.patches.resolve() if arguments.patches else None,
        fragments=tuple(kernel_config.fragment_path(name) for name in arguments.config),
        source=arguments.source.resolve() if arguments.source else None,
        update=arguments.update, offline=arguments.offline))
    folder = product.folder
    if arguments.out:
        folder = shutil.copytree(folder, arguments.out, dirs_exist_ok=True)
    print(f"Linux {product.version}: {folder / 'bzImage'}")


if __name__ == "__main__":
    common.run(main, "build-kernel")
