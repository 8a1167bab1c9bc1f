# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages: what is missing, and its installation. The only place that asks for root."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable

from umbra import cache, progress
from umbra.errors import ExitCode, UserError

QEMU = ("build-essential", "ninja-build", "libglib2.0-dev", "libpixman-1-dev", "libfdt-dev", "zlib1g-dev",
        "python3-venv", "flex", "bison", "pkg-config", "dpkg-dev", "patch", "xz-utils")
KERNEL = ("build-essential", "flex", "bison", "bc", "libelf-dev", "libssl-dev", "xz-utils", "cpio", "kmod", "patch")
IMAGES = ("build-essential", "busybox-static", "binutils", "zstd")
FIO = ("build-essential", "dpkg-dev", "libaio-dev", "zlib1g-dev", "xz-utils")
FIRMWARE = ("seabios", "qemu-system-data")
PLUGIN = ("build-essential", "cmake", "ninja-build", "libglib2.0-dev", "pkg-config", "libgtest-dev", "libbenchmark-dev",
          "libprotobuf-dev", "protobuf-compiler")
# nlohmann-json reads QEMU's answers in what starts a QEMU without a guest: tests/qtest, tests/bench/device.
BENCH = (*PLUGIN, "nlohmann-json3-dev", "python3-matplotlib")
# cpio reads an archive that ours wrote; busybox runs the agents' shell functions; clang has the fuzzer; ccache has what
# another clone, as CI's, already compiled; prometheus-client judges umbra-stat's OpenMetrics;
# mypy and flake8 check the scripts (scripts/pyproject.toml).
TESTS = (*PLUGIN, "nlohmann-json3-dev", "cpio", "busybox-static", "clang", "libclang-rt-dev", "ccache",
         "python3-prometheus-client", "mypy", "python3-flake8")


def missing(names: Iterable[str]) -> list[str]:
    """Those of `names` that are not installed, in order and each once."""
    wanted = list(dict.fromkeys(names))
    if not shutil.which("dpkg-query"):
        raise UserError(ExitCode.ENVIRONMENT, "There is no dpkg-query: this is not Debian.",
                        "Debian 12 or 13 is needed.")
    reply = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted],
                           capture_output=True, text=True, check=False).stdout
    present = {line.split()[0] for line in reply.splitlines() if line.endswith(" installed")}
    return [name for name in wanted if name not in present]


def ensure(names: Iterable[str], offline: bool = False) -> None:
    """Installs what is missing of `names`."""
    needed = missing(names)
    if not needed:
        return
    by_hand = f"Run as root: apt-get install --no-install-recommends {' '.join(needed)}"
    if offline:
        raise UserError(ExitCode.ENVIRONMENT, f"With --offline, these Debian packages are missing: {' '.join(needed)}.",
                        by_hand)
    prefix = _root_prefix(needed, by_hand)
    log = cache.log_file("packages")
    # DEBIAN_FRONTEND goes through env(1), since sudo drops variables.
    apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "--no-install-recommends"]
    try:
        progress.run("Reading the package lists", [*apt, "update"], log)
        progress.run(f"Installing {' '.join(needed)}", [*apt, "install", *needed], log)
    except progress.StepFailed as error:
        raise UserError(ExitCode.ENVIRONMENT, str(error), by_hand) from None


def _root_prefix(needed: list[str], by_hand: str) -> list[str]:
    if os.geteuid() == 0:
        return []
    if not shutil.which("sudo"):
        raise UserError(ExitCode.ENVIRONMENT, f"These packages are missing: {' '.join(needed)}; this is not root, and "
                        "there is no sudo.", by_hand)
    check = ["sudo", "-v"] if sys.stdin.isatty() else ["sudo", "-n", "true"]
    progress.say(f"Root rights are needed to install: {' '.join(needed)}")
    if subprocess.run(check, check=False).returncode != 0:
        raise UserError(ExitCode.ENVIRONMENT, "sudo was refused, so the missing packages cannot be installed.", by_hand)
    return ["sudo", "-n"]
