# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds fio for the guest: statically linked, with the engines that reach a local block device.

Debian's binary would do, were it not linked with every storage cluster's client: 64 libraries, 80 MB, in the memory of
a guest that a nested emulator runs.
"""

import subprocess
from pathlib import Path

from umbra import cache, progress
from umbra.building import debian_source, packages
from umbra.building.environment import environment, jobs
from umbra.errors import ExitCode, UserError

_CONFIGURE = ("--build-static", "--disable-native", "--disable-numa", "--disable-rdma", "--disable-rados",
              "--disable-rbd", "--disable-http", "--disable-gfapi", "--disable-pmem", "--disable-shm",
              "--disable-libzbc", "--disable-xnvme", "--disable-tcmalloc")
_RECIPE = 1


def _folder() -> Path:
    return cache.root() / "fio" / cache.key_of(configure=_CONFIGURE, recipe=_RECIPE)


def find() -> Path | None:
    program = _folder() / "fio"
    return program if program.exists() else None


def version_of(program: Path) -> str:
    """As fio says it: fio-3.33."""
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def ensure(offline: bool) -> Path:
    found = find()
    if found:
        return found
    if offline:
        raise UserError(ExitCode.ENVIRONMENT, f"With --offline, the guest's fio is missing in {cache.root()}.",
                        "Run scripts/build-images once with a network.")
    packages.ensure(packages.FIO)
    with cache.lock("fio") as lock:
        found = find()
        if found:
            return found
        log = cache.log_file("fio")
        with cache.new_folder(_folder()) as new:
            # Any will do, and an archive can list what it no longer has.
            suites = (debian_source.codename(), "trixie", "bookworm", "sid")
            _, dsc = debian_source.fetch("fio", ("3",), suites, "deb-src", log,
                                         lambda suite, version: suite.fetch_source("fio", version, new, log))
            source = new / "source"
            progress.run("Unpacking fio's source", ["dpkg-source", "--no-check", "-x", dsc, source], log)
            progress.run("Configuring fio", ["./configure", *_CONFIGURE], log, cwd=source, env=environment())
            progress.run("Building fio", ["make", f"-j{jobs()}", "fio"], log, cwd=source, env=environment(),
                         keep_open=[lock])
            progress.run("Stripping fio", ["strip", "-o", new / "fio", source / "fio"], log)
            for path in new.iterdir():
                if path.name != "fio":
                    cache.remove(path)
    return _folder() / "fio"
