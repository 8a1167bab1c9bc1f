# SPDX-License-Identifier: GPL-2.0-or-later
"""The environment in which QEMU, the kernel and the plugin are built: the same whatever the user's shell holds."""

import os
import shutil
from pathlib import Path

from umbra import cache
from umbra.project import TREE

_CCACHE_WRAPPERS = Path("/usr/lib/ccache")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Variables that compilers, make, Kbuild and Python read. A stray one would change a product without changing its key.
_DROPPED = {"CC", "CXX", "CPP", "LD", "AR", "AS", "NM", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "MAKEFLAGS",
            "MAKE", "ARCH", "CROSS_COMPILE", "LLVM", "O", "V", "W", "C", "M", "LOCALVERSION", "PYTHONPATH",
            "PYTHONHOME", "VIRTUAL_ENV", "NINJA_STATUS", "DESTDIR", "CPATH", "LIBRARY_PATH", "LD_LIBRARY_PATH",
            "LD_PRELOAD", "GREP_OPTIONS", "KCFLAGS", "KCONFIG_CONFIG", "KBUILD_OUTPUT"}


def jobs() -> int:
    return len(os.sched_getaffinity(0))


def plain_environment(**more: str) -> dict[str, str]:
    """A copy of the process's environment, cleaned. A ccache that is called keeps its objects in our cache, and what
    one clone of the project has compiled serves the others: the folder's name does not count."""
    ours = {"CCACHE_DIR": str(cache.root() / "ccache"), "CCACHE_BASEDIR": str(TREE), "CCACHE_NOHASHDIR": "1"}
    cleaned = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    return ours | cleaned | {"PATH": _SYSTEM_PATH, "LC_ALL": "C.UTF-8"} | more


def environment(**more: str) -> dict[str, str]:
    """The same, and compilers that are called by name go through ccache where that is installed."""
    path = f"{_CCACHE_WRAPPERS}:{_SYSTEM_PATH}" if _CCACHE_WRAPPERS.is_dir() else _SYSTEM_PATH
    return plain_environment(PATH=path) | more


def program(name: str) -> str | None:
    """The path of a program of the system, or None."""
    return shutil.which(name, path=_SYSTEM_PATH)
