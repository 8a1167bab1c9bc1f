# SPDX-License-Identifier: GPL-2.0-or-later
"""Byte streams to a VM (sockets or FIFO pairs) and the line protocol on them.

Every read has a deadline: whatever a guest does or fails to do, the caller gets control back.
"""

import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

MAX_LINE = 4 * 1024 * 1024


class PortClosed(Exception):
    """The other end has gone."""


class PortTimeout(Exception):
    """Nothing (or no whole line) came before the deadline."""


class NotJson(Exception):
    """A line came that is no JSON object. The message is the line; of a long one, what is around the fault."""

    _SHOWN = 200

    def __init__(self, line: bytes, fault: int = 0):
        first = max(0, fault - self._SHOWN // 2)
        last = first + self._SHOWN
        super().__init__("…" * (first > 0) + ascii(line[first:last].decode("latin-1")) + "…" * (last < len(line)))


class Port:
    """A two-way byte stream that is read line by line. One reader and one writer thread at most."""

    def __init__(self, read_fd: int, write_fd: int, owner: socket.socket | None = None):
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._owner = owner
        self._buffer = bytearray()

    @classmethod
    def connect(cls, path: Path, deadline: float) -> "Port":
        """Connects to a Unix socket that may not exist yet, in a folder that does."""
        # A socket's name has at most 107 bytes, whatever the folder's length.
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            while True:
                stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    stream.connect(f"/proc/self/fd/{folder}/{path.name}")
                    return cls(stream.fileno(), stream.fileno(), stream)
                except OSError:
                    stream.close()
                    if time.monotonic() > deadline:
                        raise PortTimeout(f"no socket at {path}") from None
                    time.sleep(0.02)
        finally:
            os.close(folder)

    @classmethod
    def open_fifos(cls, path: Path) -> "Port":
        """Makes the pair PATH.in, PATH.out that QEMU's `pipe` backend uses, and opens our ends.

        Both are opened read-write, so that neither side sees an end of file while the other
        starts or restarts.
        """
        for suffix in (".in", ".out"):
            os.mkfifo(f"{path}{suffix}")
        return cls(os.open(f"{path}.out", os.O_RDWR | os.O_NONBLOCK),
                   os.open(f"{path}.in", os.O_RDWR))

    def close(self) -> None:
        if self._owner is not None:
            self._owner.close()
            return
        os.close(self._read_fd)
        if self._write_fd != self._read_fd:
            os.close(self._write_fd)

    def read_some(self, deadline: float) -> bytes:
        """Whatever is there, at least one byte."""
        while True:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._read_fd], [], [], max(0.0, left))
            if not ready:
                raise PortTimeout
            try:
                data = os.read(self._read_fd, 65536)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                data = b""
            if not data:
                raise PortClosed
            return data

    def read_line(self, deadline: float) -> bytes:
        while True:
            end = self._buffer.find(b"\n")
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[:end + 1]
                return line
            if len(self._buffer) > MAX_LINE:
                raise PortClosed(f"a line of more than {MAX_LINE} bytes")
            self._buffer += self.read_some(deadline)

    def write(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            _, ready, _ = select.select([], [self._write_fd], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise PortTimeout
            try:
                view = view[os.write(self._write_fd, view[:4096]):]
            except BrokenPipeError:
                raise PortClosed from None

    def read_object(self, deadline: float) -> dict:
        """The next line, which must be a JSON object: else NotJson is raised."""
        line = self.read_line(deadline)
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise NotJson(line, error.pos) from None
        except (UnicodeDecodeError, RecursionError):
            raise NotJson(line) from None
        if not isinstance(value, dict):
            raise NotJson(line)
        return value


class Recorder(threading.Thread):
    """Copies all that a port delivers into a file, and keeps listening until the port closes.

    `echo` is called with each piece of text as well, from this thread.
    """

    def __init__(self, port: Port, path: Path, echo: Callable[[str], object] | None = None):
        super().__init__(daemon=True, name=f"recorder-{path.name}")
        self._port = port
        self._path = path
        self._echo = echo
        self._ended = threading.Event()

    def run(self) -> None:
        with open(self._path, "wb", buffering=0) as log:
            while not self._ended.is_set():
                try:
                    data = self._port.read_some(time.monotonic() + 0.2)
                except PortTimeout:
                    continue
                except (PortClosed, OSError, ValueError):
                    return
                log.write(data)
                if self._echo is not None:
                    self._echo(data.decode("utf-8", "replace"))

    def stop(self) -> None:
        self._ended.set()
        self.join(timeout=2)
