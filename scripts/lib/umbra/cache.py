# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache of heavy products, and what makes it safe to kill a build or to start two at once.

Root: UMBRA_CACHE, else ${XDG_CACHE_HOME:-~/.cache}/umbra. A product is a folder named by a key, the hash of all that
goes into it (source version, configuration, patches, recipe), so a change of input is another product. Folders are
made under a temporary name and renamed when whole; one that cannot be moved, a build tree with absolute paths in it,
counts as whole once it holds `product.json`. A file lock a name keeps two commands from building the same thing.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from umbra.errors import ExitCode, UserError
from umbra.progress import say

_STAMP = "product.json"


def root() -> Path:
    chosen = os.environ.get("UMBRA_CACHE")
    if chosen:
        path = Path(chosen).absolute()
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        path = Path(base).absolute() / "umbra"
    if any(character in str(path) for character in " :\t\n'\"\\$"):
        # Neither make nor QEMU's configure can build in such a folder.
        raise UserError(ExitCode.USAGE, f"The cache folder {str(path)!r} has a blank, colon or quote in its name.",
                        "Set UMBRA_CACHE to another folder.")
    return path


def log_file(name: str) -> Path:
    """The log of a step; an older one of the same name is kept as NAME.1."""
    path = root() / "logs" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.replace(path.with_suffix(".log.1"))
    return path


def key_of(**inputs: Any) -> str:
    """A short hash of JSON-like values."""
    text = json.dumps(inputs, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def hash_of_tree(*paths: Path) -> str:
    """Hash of names, modes, link targets and contents of files; folders are taken with all that is in them."""
    digest = hashlib.sha256()
    for top in paths:
        for path in sorted([top, *top.rglob("*")] if top.is_dir() else [top]):
            name = path.relative_to(top).as_posix()
            if path.is_symlink():
                digest.update(f"L {name} {os.readlink(path)}\n".encode())
            elif path.is_file():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"F {name} {path.stat().st_mode & 0o111 != 0} {content}\n".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def lock(name: str) -> Iterator[int]:
    """Holds the lock NAME; yields its file descriptor, which a child may inherit to keep it held."""
    folder = root() / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(ExitCode.ENVIRONMENT, f"The cache {root()} cannot be written: {error.strerror}.",
                        "Set UMBRA_CACHE to a folder of yours.") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Waiting for another command that is building {name} …")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def need_space(gigabytes: float, what: str) -> None:
    """Refuses before a long build what would end with a full disk."""
    folder = root()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise UserError(ExitCode.ENVIRONMENT, f"{what} needs {gigabytes:.1f} GB in {folder}, {free:.1f} GB are free.",
                        "Free some space, or set UMBRA_CACHE to a folder on another disk.")


def read_stamp(folder: Path) -> dict | None:
    """What write_stamp left in a whole product, or None."""
    return recall(folder / _STAMP)


def write_stamp(folder: Path, content: dict) -> None:
    write_atomically(folder / _STAMP, json.dumps(content, indent=2, sort_keys=True) + "\n")


def recall(request: Path) -> dict | None:
    """What remember() left in a file, or None."""
    try:
        return json.loads(request.read_text())
    except (OSError, ValueError):
        return None


def remember(request: Path, content: dict) -> None:
    write_atomically(request, json.dumps(content) + "\n")


def write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.replace(path)


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final` that takes its name when the block ends well, and goes away otherwise.

    An older `final` is replaced. The caller holds a lock; leftovers of killed builds are swept here.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    for leftover in final.parent.glob(f".{final.name}.*.tmp"):
        remove(leftover)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        if final.exists():
            old = temporary.with_name(f".{final.name}.old.tmp")
            final.rename(old)
            temporary.rename(final)
            remove(old)
        else:
            temporary.rename(final)
    except BaseException:
        remove(temporary)
        raise


def remove(folder: Path) -> None:
    """Removes a folder with all in it. rm is many times faster than shutil.rmtree on a source tree."""
    subprocess.run(["rm", "-rf", "--", folder], check=False)
