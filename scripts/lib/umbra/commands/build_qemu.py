# SPDX-License-Identifier: GPL-2.0-or-later
"""build-qemu: builds QEMU from Debian's source package."""

from umbra.building import packages, qemu
from umbra.building.qemu import DEFAULT_VERSION, QemuOptions
from umbra.commands import common


def main() -> None:
    parser = common.Parser(
        prog="build-qemu",
        description="Builds QEMU (x86-64 system emulation, plugins on) from Debian's source package.",
        epilog="The environment variable QEMU_SOURCE=FOLDER-OR-TARBALL names a source that is built in place of\n"
               "Debian's. A folder is built as it is, without the patches.\n"
               "QEMU_UNPATCHED=1 makes every script use a QEMU without the patches.\n"
               "Example: scripts/build-qemu --qemu-version 10.2")
    parser.add_argument("--qemu-version", metavar="X.Y", default=DEFAULT_VERSION,
                        help="version or branch to build (default: %(default)s)")
    parser.add_argument("--unpatched", action="store_true",
                        help="leave out qemu-configs/patches, which mend faults of QEMU (default: apply them)")
    common.add_common_options(parser)
    arguments = parser.parse_args()
    if not all(part.isdigit() for part in arguments.qemu_version.split(".")):
        parser.error(f"--qemu-version {arguments.qemu_version} is no version number")
    choice = {"unpatched": True} if arguments.unpatched else {}
    product = qemu.ensure(QemuOptions.from_environment(version=arguments.qemu_version, update=arguments.update,
                                                       offline=arguments.offline, **choice))
    packages.ensure(packages.FIRMWARE, arguments.offline)
    print(f"QEMU {product.version}: {product.binary}")
    print("".join(f"  with {name}\n" for name in product.patches) or "  without the patches of qemu-configs/patches\n",
          end="")


if __name__ == "__main__":
    common.run(main, "build-qemu")
