# SPDX-License-Identifier: GPL-2.0-or-later
"""The environment in which QEMU, the kernel and the plugin are built: the same whatever the user's shell holds."""

import os
from pathlib import Path

_CCACHE_WRAPPERS = Path("/usr/lib/ccache")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Variables that compilers, make, Kbuild and Python read; a stray one would change what is built without changing its key.
_DROPPED = {"CC", "CXX", "CPP", "LD", "AR", "AS", "NM", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "MAKEFLAGS", "MAKE",
            "ARCH", "CROSS_COMPILE", "LLVM", "O", "V", "W", "C", "M", "LOCALVERSION", "PYTHONPATH", "PYTHONHOME",
            "VIRTUAL_ENV", "NINJA_STATUS", "DESTDIR", "CPATH", "LIBRARY_PATH", "LD_LIBRARY_PATH", "LD_PRELOAD",
            "GREP_OPTIONS", "KCFLAGS", "KCONFIG_CONFIG", "KBUILD_OUTPUT"}


def jobs() -> int:
    return len(os.sched_getaffinity(0))


def environment(**more: str) -> dict[str, str]:
    """A copy of the process's environment, cleaned; compilers go through ccache where that is installed."""
    cleaned = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    path = f"{_CCACHE_WRAPPERS}:{_SYSTEM_PATH}" if _CCACHE_WRAPPERS.is_dir() else _SYSTEM_PATH
    return cleaned | {"PATH": path, "LC_ALL": "C.UTF-8"} | more
