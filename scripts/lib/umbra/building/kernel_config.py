# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel is built from: the options of a build, fragments of its configuration, and the keys of products.

A configuration is `allnoconfig` plus the fragments in qemu-configs/kernel/.
"""

import dataclasses
import re
import subprocess
from pathlib import Path
from typing import Any

from umbra import cache, progress
from umbra.building import patches
from umbra.errors import ExitCode, UserError
from umbra.project import TREE

FRAGMENTS = TREE / "qemu-configs" / "kernel"
DEFAULT_FRAGMENTS = ("base", "vfio-host", "guest")
SERIES = TREE / "guest-kernel-patches" / "linux-6.12"
GUEST_MODULE = TREE / "tests" / "guest" / "module"

# What only a kernel with a series can have. A series need not have all of it.
SERIES_FRAGMENT = FRAGMENTS / "series.config"

_RECIPE = 1
# Fixed, so that the same input gives the same image.
IDENTITY = {"KBUILD_BUILD_USER": "umbra", "KBUILD_BUILD_HOST": "umbra", "KBUILD_BUILD_VERSION": "1",
            "KBUILD_BUILD_TIMESTAMP": "2024-11-17 00:00:00 UTC"}


@dataclasses.dataclass(frozen=True)
class KernelOptions:
    """`patches`: folder of a series. `fragments`: further ones. `source`: a tree of the user's own, only read."""
    patches: Path | None = None
    fragments: tuple[Path, ...] = ()
    source: Path | None = None
    update: bool = False
    offline: bool = False

    @staticmethod
    def patched(**options: Any) -> "KernelOptions":
        return KernelOptions(patches=SERIES, **options)


def fragment_path(name: str) -> Path:
    """A fragment by path, or by its name in qemu-configs/kernel/."""
    for path in (Path(name), FRAGMENTS / f"{name}.config"):
        if path.is_file():
            return path.absolute()
    known = ", ".join(sorted(path.stem for path in FRAGMENTS.glob("*.config")))
    raise UserError(ExitCode.USAGE, f"The kernel fragment {name} is neither a file nor one of: {known}.")


def all_fragments(options: KernelOptions) -> list[Path]:
    own = [SERIES_FRAGMENT] if options.patches or options.source else []
    return [FRAGMENTS / f"{name}.config" for name in DEFAULT_FRAGMENTS] + own + list(options.fragments)


def compiler() -> str:
    try:
        return subprocess.run(["/usr/bin/gcc", "-dumpfullversion"], capture_output=True, text=True, check=False
                              ).stdout.strip()
    except OSError:
        return ""


def configuration_key(options: KernelOptions) -> dict:
    return {"fragments": [path.read_text() for path in all_fragments(options)], "compiler": compiler(),
            "recipe": _RECIPE, "identity": IDENTITY}


def product_inputs(options: KernelOptions) -> dict:
    inputs = configuration_key(options)
    if options.patches:
        inputs["patches"] = [patch.read_text(errors="replace") for patch in patches.series(options.patches)]
    if GUEST_MODULE.is_dir():
        inputs["module"] = cache.hash_of_tree(GUEST_MODULE)
    return inputs


def local_version(options: KernelOptions) -> str:
    """Suffix of the release (`uname -r`). It tells a patched kernel from a stock one, and one configuration from
    another: a kernel compares the release before it takes a module, and a module of another configuration hangs it."""
    inputs = product_inputs(options)
    inputs.pop("module", None)
    return f"{'-umbra' if options.patches else ''}-{cache.key_of(**inputs)[:8]}"


def patches_of_kconfig(options: KernelOptions) -> list[str]:
    """Those of the series that change which options there are, and with it what the fragments can ask for."""
    series = patches.series(options.patches) if options.patches else []
    return [patch.read_text(errors="replace") for patch in series
            if any(Path(name).name.startswith("Kconfig") for name in patches.files_named_by(patch))]


def lost_options(config: str, fragment: str) -> list[str]:
    """Lines of a fragment that a resolved .config does not hold."""
    present = set(config.splitlines())
    lost = []
    for line in fragment.splitlines():
        if re.fullmatch(r"CONFIG_\w+=.+", line):
            name, value = line.split("=", 1)
            off = value == "n" and not any(other.startswith(f"{name}=") for other in present)
            if line not in present and not off:
                lost.append(line)
        elif match := re.fullmatch(r"# (CONFIG_\w+) is not set", line):
            if any(other.startswith(f"{match[1]}=") for other in present):
                lost.append(line)
    return lost


def check_configuration(config: Path, options: KernelOptions) -> None:
    text = config.read_text()
    for fragment in all_fragments(options):
        lost = lost_options(text, fragment.read_text())
        if not lost or fragment == SERIES_FRAGMENT:
            continue
        what = f"This kernel does not take what {fragment.name} asks for: {', '.join(lost)}."
        if options.source:
            # Another version's options may differ without harm.
            progress.say(f"Note: {what}")
        else:
            raise UserError(ExitCode.USAGE, what, "A dependency is missing in the fragment.")
