# SPDX-License-Identifier: GPL-2.0-or-later
"""build-images: builds the initramfs images."""

import shutil
from pathlib import Path

from umbra.building import images
from umbra.building.images import ImageOptions
from umbra.commands import common


def main() -> None:
    parser = common.Parser(
        prog="build-images", description="Builds the initramfs images of the guest and of the testbed host, and what "
        "they need (QEMU, the stock kernel). Same input, same bytes.",
        epilog="Example: scripts/build-images --out /tmp/images")
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="also copy guest.img and host.img here")
    common.add_common_options(parser)
    arguments = parser.parse_args()
    built = images.ensure(ImageOptions(offline=arguments.offline, update=arguments.update))
    paths = [built.guest_initrd, built.host_initrd]
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        paths = [Path(shutil.copy2(path, arguments.out / path.name)) for path in paths]
    for path in paths:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    common.run(main, "build-images")
