# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports: byte streams to a guest, read line by line."""

import os
import socket
import tempfile
import threading
import time
import unittest
from pathlib import Path

from umbra.vm.ports import NotJson, Port, PortClosed, PortTimeout


class Ports(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.port = Port.open_fifos(Path(folder.name) / "guest.port")
        self.addCleanup(self.port.close)
        self.peer_in = os.open(f"{folder.name}/guest.port.in", os.O_RDWR)
        self.peer_out = os.open(f"{folder.name}/guest.port.out", os.O_RDWR)
        self.addCleanup(os.close, self.peer_in)
        self.addCleanup(os.close, self.peer_out)

    def soon(self) -> float:
        return time.monotonic() + 20

    def test_lines_arrive_whole_however_they_are_cut(self):
        def send():
            for piece in (b'{"event":', b'"ready"}\n{"a"', b":2}\n"):
                os.write(self.peer_out, piece)
        sender = threading.Thread(target=send)
        sender.start()
        self.assertEqual(self.port.read_object(self.soon()), {"event": "ready"})
        self.assertEqual(self.port.read_object(self.soon()), {"a": 2})
        sender.join()

    def test_a_line_that_is_no_object_is_shown_where_its_fault_is(self):
        for line, shown in ((b"noise", "'noise'"), (b"[1]", "'[1]'"), (b"", "''"), (b"\xff{}", "'\\xff{}'"),
                            (b"[" * 60000, "'" + "[" * 200 + "'…"),
                            (b'{"a":"' + b"x" * 500 + b'"quote","b":1}', "…'" + "x" * 99 + '"quote","b":1}\'')):
            with self.subTest(shown):
                os.write(self.peer_out, line + b"\n")
                with self.assertRaises(NotJson) as caught:
                    self.port.read_object(self.soon())
                self.assertEqual(str(caught.exception), shown)
        os.write(self.peer_out, b"{}\n")
        self.assertEqual(self.port.read_object(self.soon()), {})

    def test_deadline(self):
        with self.assertRaises(PortTimeout):
            self.port.read_line(time.monotonic() + 0.01)

    def test_endless_line_is_given_up(self):
        stop = threading.Event()

        def flood():
            os.set_blocking(self.peer_out, False)
            while not stop.is_set():
                try:
                    os.write(self.peer_out, b"x" * 65536)
                except BlockingIOError:
                    time.sleep(0.001)
        sender = threading.Thread(target=flood)
        sender.start()
        try:
            with self.assertRaises(PortClosed):
                self.port.read_line(time.monotonic() + 60)
        finally:
            stop.set()
            sender.join()

    def test_write(self):
        self.port.write(b"device\n", self.soon())
        self.assertEqual(os.read(self.peer_in, 100), b"device\n")

    def test_write_to_a_peer_that_does_not_read(self):
        with self.assertRaises(PortTimeout):
            self.port.write(b"x" * (1 << 20), time.monotonic() + 0.05)


class Sockets(unittest.TestCase):
    def test_a_folder_with_a_long_name(self):
        with tempfile.TemporaryDirectory() as top, socket.socket(socket.AF_UNIX) as server:
            folder = Path(top) / ("x" * 200)
            folder.mkdir()
            here = os.open(folder, os.O_PATH | os.O_DIRECTORY)
            self.addCleanup(os.close, here)
            server.bind(f"/proc/self/fd/{here}/a.sock")
            server.listen()
            port = Port.connect(folder / "a.sock", time.monotonic() + 20)
            self.addCleanup(port.close)
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"{}\n")
                self.assertEqual(port.read_object(time.monotonic() + 20), {})

    def test_no_socket_at_the_deadline(self):
        with tempfile.TemporaryDirectory() as folder, self.assertRaises(PortTimeout):
            Port.connect(Path(folder) / "a.sock", time.monotonic())


if __name__ == "__main__":
    unittest.main()
