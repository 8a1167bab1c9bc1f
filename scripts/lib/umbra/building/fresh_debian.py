# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian in which nothing is installed yet, and the project's commands run there as on a new machine.

The system is made by mmdebstrap from the machine's own archive, unpacked below the cache and removed at the end. The
machine's APT settings, certificates, name servers and proxies go with it, and a copy of the tree. Its own cache of
builds is kept from run to run. Commands run as its root, in name spaces of their own: nothing stays mounted.

Root can do that. An ordinary user needs user namespaces with a range of ids (/etc/subuid).
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from umbra import cache, progress
from umbra.building import debian_source, packages
from umbra.errors import ExitCode, UserError
from umbra.project import TREE

RELEASE = "trixie"
_TREE = "/root/umbra"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GIGABYTES = 12  # the system with all that its commands install and build

# Runs in the namespaces. Arguments: the system's folder, that of its cache, the command.
_ENTER = f"""\
root=$1 kept=$2
shift 2
mkdir -p "$root/root/.cache/umbra"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
mount --bind "$kept" "$root/root/.cache/umbra"
exec chroot "$root" sh -c 'cd {_TREE} && exec "$@"' sh "$@"
"""

# Settings of APT that say how to reach an archive. Those of these groups say what to fetch, for this machine's release.
_OTHER_SETTINGS = ("Acquire::IndexTargets", "Acquire::Changelogs", "Acquire::CompressionTypes")


def check() -> None:
    """Raises UserError if this machine cannot make one."""
    done = subprocess.run([*namespaces(), "true"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise UserError(ExitCode.ENVIRONMENT, f"A fresh Debian needs root, or user namespaces with a range of ids in "
                        f"/etc/subuid (package uidmap), and this machine allows neither: {reason[0]}.")


def namespaces(user: int | None = None) -> list[str]:
    """The words before a command that is to run as root, with mounts and processes of its own."""
    ids = [] if (os.geteuid() if user is None else user) == 0 else ["--map-root-user", "--map-auto"]
    return ["unshare", *ids, "--mount", "--pid", "--fork", "--kill-child"]


def run(commands: Sequence[Sequence[str]]) -> list[str]:
    """Runs commands of the project one after the other in one fresh system; returns those that failed."""
    packages.ensure(("mmdebstrap",))
    folder = cache.root() / "fresh" / RELEASE
    root = folder / "root"
    with cache.lock(f"fresh-{RELEASE}"):
        cache.need_space(GIGABYTES, "A fresh Debian")
        (folder / "cache").mkdir(parents=True, exist_ok=True)
        _remove(root)
        try:
            _make(folder, root)
            return [" ".join(command) for command in commands if not _succeeds(command, root, folder / "cache")]
        finally:
            _remove(root)


def _make(folder: Path, root: Path) -> None:
    log = cache.log_file("fresh-debian")
    try:
        archive = debian_source.archive_for(RELEASE)
    except debian_source.NotAvailable as error:
        raise UserError(ExitCode.ENVIRONMENT, f"A fresh {RELEASE} cannot be made: {error}.") from None
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    settings = acquire_settings(dump)
    sources = folder / "debian.sources"
    cache.write_atomically(sources, sources_of(archive))
    system, staged = folder / "system.tar", folder / "staged"
    try:
        mode = "root" if os.geteuid() == 0 else "unshare"
        # Setting by setting: a file in the user's home is nothing that another id of the namespace can read.
        progress.run(f"Making a fresh {RELEASE}",
                     ["mmdebstrap", f"--mode={mode}", "--variant=minbase", "--format=tar",
                      "--include=ca-certificates", *(f"--aptopt={line}" for line in settings.splitlines()),
                      RELEASE, system, sources], log)
        root.mkdir()
        # Device nodes come with the machine's /dev.
        unpack: list[str | Path] = ["tar", "--numeric-owner", "--exclude=./dev/*", "-C", root, "-xf", system]
        progress.run("Unpacking it", [*namespaces(), *unpack], log)
        cache.remove(staged)
        for path in carried_files(archive, settings):
            target = staged / str(path).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target)
            else:
                shutil.copy(path, target)
        _copy_tree(staged / _TREE.lstrip("/"))
        progress.run("Copying the tree into it", [*namespaces(), "cp", "-r", f"{staged}/.", root], log)
    finally:
        for path in (system, staged, sources):
            cache.remove(path)


def sources_of(archive: debian_source.Entry) -> str:
    """The system's only source of packages, as APT's deb822 text: the release in the machine's own archive."""
    lines = ["Types: deb", f"URIs: {archive.uri}", f"Suites: {RELEASE}", "Components: main"]
    if "\n" in archive.signed_by:
        lines += ["Signed-By:", *(f" {line or '.'}" for line in archive.signed_by.strip().splitlines())]
    elif archive.signed_by:
        lines.append(f"Signed-By: {archive.signed_by}")
    return "\n".join(lines) + "\n"


def acquire_settings(dump: str) -> str:
    """Of what `apt-config dump` says, how to reach archives: proxies, certificates, checks of dates."""
    lines = [line for line in dump.splitlines() if line.startswith("Acquire::") and not line.startswith(_OTHER_SETTINGS)
             and not line.endswith(' "";')]
    return "".join(f"{line}\n" for line in lines)


def carried_files(archive: debian_source.Entry, settings: str) -> list[Path]:
    """Files and folders of the machine that the system needs at the same place."""
    names = ["/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt", "/usr/local/share/ca-certificates",
             archive.signed_by, re.sub(r"^mirror\+file:/*", "/", archive.uri),
             *re.findall(r'^Acquire::\S+ "(/[^"]*)";$', settings, re.MULTILINE)]
    paths = [Path(name) for name in dict.fromkeys(names) if name.startswith("/") and "\n" not in name]
    return [path for path in paths if path.exists()]


def _copy_tree(target: Path) -> None:
    """The project as it is, without what git ignores; outside of a clone, without the build folder."""
    try:
        listed = subprocess.run(["git", "-C", TREE, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                                capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        shutil.copytree(TREE, target, symlinks=True, ignore=shutil.ignore_patterns("build", ".git"))
        return
    for name in filter(None, listed.split("\0")):
        if (TREE / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TREE / name, target / name, follow_symlinks=False)


def _succeeds(command: Sequence[str], root: Path, kept: Path) -> bool:
    progress.say(f"In a fresh {RELEASE}: {' '.join(command)}")
    variables = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy") or name == "TERM"}
    variables |= {"HOME": "/root", "LANG": "C.UTF-8", "PATH": _PATH}
    return subprocess.run([*namespaces(), "sh", "-euc", _ENTER, "sh", root, kept, *command], env=variables,
                          stdin=subprocess.DEVNULL, check=False).returncode == 0


def _remove(root: Path) -> None:
    """As root of the namespaces, to whom files of other owners belong."""
    if root.exists():
        subprocess.run([*namespaces(), "rm", "-rf", "--one-file-system", "--", root], check=False)
