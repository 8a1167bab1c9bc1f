# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals that end a command, made to wait where they would leave something half-done."""

import contextlib
import signal
import threading
from collections.abc import Iterator

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Inside the block the handlers of SIGINT, SIGTERM and SIGHUP do not run; signals are handled at its end.

    For starting a process: an exception out of the middle of that leaves a child that nobody knows and nobody ends.
    """
    if threading.current_thread() is not threading.main_thread():
        # Python runs handlers in the main thread only.
        yield
        return
    came: list[tuple] = []
    # Where a signal is ignored it stays so, and the started program inherits that.
    handlers = {number: handler for number in _ENDING if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda *what: came.append(what))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number, frame in came[:1]:
        handlers[number](number, frame)
