# SPDX-License-Identifier: GPL-2.0-or-later
"""A patch series, applied to a source tree so that the next build compiles only what the series changes.

The patched tree is a copy of a built stock tree. The series is applied to pristine copies of the files that it names,
aside from the tree; then only files whose content differs are written into the tree, so that make sees those as new
and nothing else. The same step takes a tree from one version of a series to the next, and away from files that only
the older one named.
"""

import re
import shutil
import tempfile
from pathlib import Path, PurePosixPath

from umbra import cache, progress
from umbra.errors import ExitCode, UserError

_RECORD = ".umbra-patched-files"


def series(folder: Path) -> list[Path]:
    """The patches of a folder in order: as its file `series` says, else by name."""
    if not folder.is_dir():
        raise UserError(ExitCode.USAGE, f"The patch folder {folder} does not exist.")
    listing = folder / "series"
    if listing.is_file():
        names = [line.split("#")[0].strip() for line in listing.read_text().splitlines()]
        patches = [folder / name for name in names if name]
    else:
        patches = sorted(folder.glob("*.patch"))
    if not patches:
        raise UserError(ExitCode.USAGE, f"The patch folder {folder} holds no patches.")
    for patch in patches:
        if not patch.is_file():
            raise UserError(ExitCode.USAGE, f"{listing} names {patch.name}, which does not exist.")
    return patches


def files_named_by(patch: Path) -> set[str]:
    """Paths in the source tree that a patch (as git format-patch writes it) creates, changes or removes."""
    found = set()
    for line in patch.read_text(errors="replace").splitlines():
        match = re.match(r"diff --git a/(\S+) b/(\S+)$", line)
        names = match.groups() if match else ()
        match = re.match(r"(?:---|\+\+\+) [ab]/(\S+)", line)
        if match:
            names = (match[1],)
        for name in names:
            if ".." in PurePosixPath(name).parts:
                raise UserError(ExitCode.USAGE, f"{patch} names a file outside of the source tree: {name}.")
            found.add(name)
    if not found:
        raise UserError(ExitCode.USAGE, f"{patch} is not a patch as git format-patch writes it.")
    return found


def apply(patches: list[Path], stock: Path, tree: Path, log: Path) -> None:
    """Makes `tree` be `stock` plus the series, with as few files written as can be."""
    record = tree / _RECORD
    before = set(record.read_text().splitlines()) if record.exists() else set()
    named = set().union(*(files_named_by(patch) for patch in patches))
    # Written first and as the union: a killed run leaves no file that a later one does not know to be changed.
    cache.write_atomically(record, "".join(f"{name}\n" for name in sorted(before | named)))
    with tempfile.TemporaryDirectory(prefix="umbra-patches-") as scratch:
        area = Path(scratch)
        for name in before | named:
            if (stock / name).is_file():
                (area / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(stock / name, area / name)
        for patch in patches:
            try:
                progress.run(f"Applying {patch.name}",
                             ["patch", "-p1", "--batch", "--forward", "--no-backup-if-mismatch", "-i",
                              patch.absolute()], log, cwd=area)
            except progress.StepFailed as error:
                raise UserError(ExitCode.USAGE, f"The patch {patch} does not apply to this source:\n{error.output}\n"
                                ) from None
        for name in before | named:
            _bring_over(area / name, tree / name)
    cache.write_atomically(record, "".join(f"{name}\n" for name in sorted(named)))


def _bring_over(wanted: Path, present: Path) -> None:
    if not wanted.is_file():
        present.unlink(missing_ok=True)
    elif not present.is_file() or present.read_bytes() != wanted.read_bytes():
        present.parent.mkdir(parents=True, exist_ok=True)
        # Not copy2: the file must be newer than what make built from its predecessor.
        shutil.copyfile(wanted, present)
