# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's console on the user's terminal."""

import os
import sys
import termios
import threading
import time
import tty

from umbra.errors import ExitCode
from umbra.vm.guest import Guest


def join(guest: Guest) -> ExitCode:
    """Joins the terminal to the guest's console. Ctrl-A X ends the guest."""
    interactive = sys.stdin.isatty()
    before = termios.tcgetattr(sys.stdin) if interactive else None
    if interactive:
        tty.setraw(sys.stdin)
    done = threading.Event()

    def pump() -> None:
        prefix = False
        while not done.is_set():
            data = os.read(sys.stdin.fileno(), 1)
            if not data:
                return
            if prefix and data in b"xX":
                done.set()
                return
            prefix = data == b"\x01" and not prefix
            if not prefix:
                guest.console_port.write(data, time.monotonic() + 10)

    threading.Thread(target=pump, daemon=True).start()
    try:
        while not done.is_set():
            if guest.host.guest_exit_status() is not None:
                break
            if time.monotonic() > guest.deadline:
                return ExitCode.TIME_LIMIT
            done.wait(0.5)
        return ExitCode.GUEST_FAILED if guest.panicked() else ExitCode.PASS
    finally:
        if before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
