# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether this machine itself uses a PCI device: taking it away would take a disk, the network or the screen.

Read from sysfs and procfs; nothing is opened or changed.
"""

import re
from collections.abc import Iterator
from pathlib import Path


def use_of(device: Path, sysfs: Path = Path("/sys"), proc: Path = Path("/proc")) -> str | None:
    """The first use that is found of the device with this folder in sysfs, as the end of a sentence; None if there is
    none."""
    return next(_uses(device, sysfs, proc), None)


def _uses(device: Path, sysfs: Path, proc: Path) -> Iterator[str]:
    mounts = dict(line.split()[:2] for line in _lines(proc / "self/mounts") if len(line.split()) > 1)
    swaps = {line.split()[0] for line in _lines(proc / "swaps") if line.strip()}
    for name in sorted(_below(device, sysfs / "class/block")):
        node = f"/dev/{name}"
        if node in mounts:
            yield f"{node} is mounted at {mounts[node]}"
        if node in swaps:
            yield f"{node} is swap"
        holders = sorted(path.name for path in (sysfs / "class/block" / name / "holders").glob("*"))
        if holders:
            yield f"{node} is part of {', '.join(holders)} (RAID, LVM or encryption)"
    routed = {fields[0] for fields in map(str.split, _lines(proc / "net/route")[1:])
              if len(fields) > 1 and fields[1] == "00000000"}
    for name in sorted(_below(device, sysfs / "class/net")):
        if name in routed:
            yield f"{name} has the default route"
        if (sysfs / "class/net" / name / "master").exists():
            yield f"{name} is part of a bridge or bond"
    if any(line.strip() == "1" for line in _lines(device / "boot_vga")):
        yield "the machine's screen is on it"


def _below(device: Path, folder: Path) -> set[str]:
    """The entries of a folder of sysfs classes that belong to the device."""
    if not folder.is_dir():
        return set()
    top = device.resolve()
    names = {entry.name for entry in folder.iterdir() if top in entry.resolve().parents}
    # With native multipath, an NVMe's path nvme0c1n2 is hidden and its disk is nvme0n2.
    return {re.sub(r"^(nvme\d+)c\d+(n\d+)$", r"\1\2", name) for name in names}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []
