# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel's build yields, and what a user's own image, module or source tree must be."""

import dataclasses
import json
import re
from pathlib import Path

from umbra.errors import ExitCode, UserError


@dataclasses.dataclass(frozen=True)
class KernelProduct:
    folder: Path

    @property
    def bzimage(self) -> Path:
        return self.folder / "bzImage"

    @property
    def modules(self) -> list[Path]:
        return sorted(self.folder.glob("*.ko"))

    @property
    def kunit_modules(self) -> list[Path]:
        """KUnit and its tests. They are apart because loading them runs them, which no other VM wants."""
        return sorted((self.folder / "kunit").glob("*.ko"))

    @property
    def benchmark(self) -> Path:
        """dma_map_benchmark, the statically linked user-space half of the kernel's benchmark."""
        return self.folder / "dma_map_benchmark"

    @property
    def version(self) -> str:
        """The release, as `uname -r` in the guest says it."""
        return self.info["version"]

    @property
    def info(self) -> dict:
        return json.loads((self.folder / "build-info.json").read_text())


def check_bzimage(path: Path) -> None:
    """Raises UserError unless the file is an x86 kernel image that QEMU's -kernel takes."""
    try:
        with open(path, "rb") as file:
            head = file.read(0x206)
    except OSError as error:
        raise UserError(ExitCode.USAGE, f"The kernel {path} cannot be read: {error.strerror}.") from None
    # Linux: Documentation/arch/x86/boot.rst, fields boot_flag and header
    if head[0x1FE:0x200] != b"\x55\xaa" or head[0x202:0x206] != b"HdrS":
        raise UserError(ExitCode.USAGE, f"{path} is no x86 kernel image (bzImage).",
                        "Give arch/x86/boot/bzImage of a kernel build.")


def is_kunit_module(module: Path) -> bool:
    """True for KUnit itself and for modules that depend on it, as .modinfo says."""
    return module.stem == "kunit" or bool(re.search(rb"\0depends=(?:[\w,]*,)?kunit[,\0]", module.read_bytes()))


def check_source(source: Path) -> None:
    """Raises UserError unless the folder is a Linux source tree that can be built somewhere else."""
    if not (source / "Kbuild").is_file() or not (source / "scripts/kconfig/merge_config.sh").is_file():
        raise UserError(ExitCode.USAGE, f"{source} holds no Linux source tree.")
    if (source / ".config").exists() or (source / "include/config").exists():
        raise UserError(ExitCode.USAGE, f"{source} was built in place, so it cannot be built elsewhere.",
                        f"Run: make -C {source} mrproper (it removes .config)")
