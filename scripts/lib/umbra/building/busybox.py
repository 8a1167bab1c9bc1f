# SPDX-License-Identifier: GPL-2.0-or-later
"""The busybox of each Debian release that Umbra supports, for tests of what runs in guests.

A guest's image holds the busybox of the machine that builds it. The other release's is unpacked into the cache, so that
one machine can test with both.
"""

from pathlib import Path

from umbra import cache, progress
from umbra.building import debian_source
from umbra.building.images import BUSYBOX
from umbra.errors import UserError

RELEASES = ("bookworm", "trixie")


def find(release: str) -> Path | None:
    """A release's busybox, if it is there."""
    path = BUSYBOX if release == debian_source.codename() else _folder(release) / "busybox"
    return path if path.exists() else None


def fetch_others() -> None:
    """Fetches those that are missing, except the machine's own. One that cannot be had is told and left out."""
    with cache.lock("busybox"):
        for release in RELEASES:
            if release == debian_source.codename() or find(release):
                continue
            try:
                _fetch(release)
            except UserError as error:
                progress.say(f"Tests with the busybox of {release} are skipped: {error.message}")


def _folder(release: str) -> Path:
    return cache.root() / "busybox" / release


def _fetch(release: str) -> None:
    log = cache.log_file("busybox")
    with cache.new_folder(_folder(release)) as new:
        name = "busybox-static"
        _, package = debian_source.fetch(name, ("1",), (release,), "deb", log,
                                         lambda suite, version: suite.fetch_package(name, version, new, log))
        progress.run(f"Unpacking the busybox of {release}", ["dpkg", "-x", package, new / "package"], log)
        # Debian 12 has it in /bin, Debian 13 in /usr/bin.
        next((new / "package").glob("**/bin/busybox")).rename(new / "busybox")
        package.unlink()
        cache.remove(new / "package")
