# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes initramfs archives (cpio, "newc" format; Linux: Documentation/driver-api/early-userspace).

Same calls, same bytes: owner 0:0, time 0, inode numbers by order. The kernel unpacks archives that
follow each other in one initrd, uncompressed ones from a 4-byte boundary.
"""

import stat
from typing import BinaryIO


class Writer:
    """`start`: how many bytes the output already holds; the archive is aligned behind them."""

    def __init__(self, out: BinaryIO, start: int = 0):
        self._out = out
        self._inode = 0
        out.write(b"\0" * (-start % 4))

    def directory(self, path: str, mode: int = 0o755) -> None:
        self._entry(path, stat.S_IFDIR | mode, b"")

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        self._entry(path, stat.S_IFREG | mode, data)

    def symlink(self, path: str, target: str) -> None:
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())

    def char_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        self._entry(path, stat.S_IFCHR | mode, b"", major, minor)

    def finish(self) -> None:
        self._inode = -1
        self._entry("TRAILER!!!", 0, b"")

    def _entry(self, path: str, mode: int, data: bytes, major: int = 0, minor: int = 0) -> None:
        name = path.lstrip("/").encode() + b"\0"
        self._inode += 1
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (self._inode, mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(name), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        self._out.write(header + name + b"\0" * (-(len(header) + len(name)) % 4))
        self._out.write(data + b"\0" * (-len(data) % 4))
