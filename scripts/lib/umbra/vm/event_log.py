# SPDX-License-Identifier: GPL-2.0-or-later
"""Counting events in a trace log that a running QEMU appends to."""

from pathlib import Path


class EventLog:
    """Reads every line once, however often it is asked. The log itself is never changed: QEMU holds it open, and
    would go on writing at its old offset behind a hole."""

    def __init__(self, path: Path, events: dict[str, str]):
        """`events`: the name that a line starts with -> where it is counted."""
        self._path = path
        self._events = events
        self._offset = 0
        self._totals = dict.fromkeys(events.values(), 0)

    def totals(self) -> dict[str, int]:
        """How often each was logged so far."""
        try:
            with open(self._path, "rb") as log:
                log.seek(self._offset)
                for line in log:
                    if not line.endswith(b"\n"):
                        break  # being written
                    self._offset += len(line)
                    name = line.split(None, 1)[0].decode("ascii", "replace") if line.strip() else ""
                    if name in self._events:
                        self._totals[self._events[name]] += 1
        except FileNotFoundError:
            pass
        return dict(self._totals)
