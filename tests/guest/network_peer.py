# SPDX-License-Identifier: GPL-2.0-or-later
"""The other end of a guest's network cable: a station that answers ARP and ICMP echo, and sends
echo requests of its own, whose replies must bring back every byte.

QEMU exchanges whole Ethernet frames with it, one a datagram, over a pair of Unix sockets.
"""

import ipaddress
import os
import random
import select
import socket
import struct
import time
from pathlib import Path

STATION = ipaddress.IPv4Address("192.0.2.1")
GUEST = ipaddress.IPv4Address("192.0.2.2")

_MAC = bytes.fromhex("525400000001")
_ARP, _IPV4 = 0x0806, 0x0800
_ICMP = 1
_ECHO_REPLY, _ECHO_REQUEST = 0, 8
_IDENTIFIER = 0x554d


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071); 0 over data that contains a right one."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


class NetworkPeer:
    """Use as a context manager, from before QEMU starts. `folder` is the one that QEMU runs in."""

    def __init__(self, folder: Path):
        self._path = folder / "station.socket"
        self._guest_path = folder / "guest.socket"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._guest_mac = b""
        self.requests_answered = 0

    @staticmethod
    def netdev(name: str) -> str:
        """The value of QEMU's -netdev option."""
        return (f"dgram,id={name},local.type=unix,local.path=guest.socket,"
                "remote.type=unix,remote.path=station.socket")

    def __enter__(self) -> "NetworkPeer":
        # A Unix socket's path has at most 107 bytes; a relative one is often short enough.
        self._socket.bind(os.path.relpath(self._path))
        return self

    def __exit__(self, *_) -> None:
        self._socket.close()

    def serve(self, requests: int, limit: float) -> None:
        """Answers until the guest has got replies to that many echo requests."""
        wanted = self.requests_answered + requests
        deadline = time.monotonic() + limit
        while self.requests_answered < wanted:
            self._handle(self._receive(deadline))

    def echo(self, seed: int, count: int, size: int, limit: float) -> None:
        """Sends `count` echo requests, each with `size` random bytes, one after the other. The guest must
        have been served before. Raises AssertionError for a reply with other bytes."""
        generator = random.Random(seed)
        deadline = time.monotonic() + limit
        for number in range(count):
            body = struct.pack("!HH", _IDENTIFIER, number) + generator.randbytes(size)
            self._send_icmp(_ECHO_REQUEST, body, number)
            while True:
                reply = self._handle(self._receive(deadline))
                if reply is not None and reply[:4] == body[:4]:
                    break
            assert reply == body, f"echo reply {number} has other bytes than the request"

    def _receive(self, deadline: float) -> bytes:
        left = max(0.0, deadline - time.monotonic())
        assert select.select([self._socket], [], [], left)[0], "the guest's network is silent"
        return self._socket.recv(65536)

    def _send(self, kind: int, payload: bytes) -> None:
        frame = self._guest_mac + _MAC + struct.pack("!H", kind) + payload
        self._socket.sendto(frame.ljust(60, b"\0"), os.path.relpath(self._guest_path))

    def _send_icmp(self, kind: int, body: bytes, number: int) -> None:
        message = struct.pack("!BBH", kind, 0, 0) + body
        message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(message), number & 0xffff, 0, 64, _ICMP, 0,
                             STATION.packed, GUEST.packed)
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
        self._send(_IPV4, header + message)

    def _handle(self, frame: bytes) -> bytes | None:
        """Answers what wants an answer. Returns the body of an echo reply."""
        kind = struct.unpack_from("!H", frame, 12)[0]
        payload = frame[14:]
        if kind == _ARP:
            self._handle_arp(payload)
        elif kind == _IPV4:
            return self._handle_ipv4(payload)
        return None

    def _handle_arp(self, payload: bytes) -> None:
        operation, mac, sender, _, target = struct.unpack_from("!H6s4s6s4s", payload, 6)
        if operation == 1 and target == STATION.packed:
            self._guest_mac = mac
            self._send(_ARP, struct.pack("!HHBBH6s4s6s4s", 1, _IPV4, 6, 4, 2, _MAC, target, mac, sender))

    def _handle_ipv4(self, payload: bytes) -> bytes | None:
        header_bytes = (payload[0] & 15) * 4
        length = struct.unpack_from("!H", payload, 2)[0]
        assert checksum(payload[:header_bytes]) == 0, "an IPv4 header from the guest has a wrong checksum"
        message = payload[header_bytes:length]
        if payload[9] != _ICMP or payload[16:20] != STATION.packed:
            return None
        assert checksum(message) == 0, "an ICMP message from the guest has a wrong checksum"
        if message[0] == _ECHO_REPLY:
            return message[4:]
        if message[0] == _ECHO_REQUEST:
            self._send_icmp(_ECHO_REPLY, message[4:], 0)
            self.requests_answered += 1
        return None
