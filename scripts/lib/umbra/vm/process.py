# SPDX-License-Identifier: GPL-2.0-or-later
"""Child processes that never outlive us, whatever way we end."""

import ctypes
import os
import signal
import subprocess
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """A QEMU (or other) process with its output in a file. Must be started from the main thread:
    the kernel ties the child's life to the thread that started it."""

    def __init__(self, argv: list[str], log: Path, cwd: Path):
        self.argv = argv
        self.log = log
        with open(log, "wb") as out:
            self._process = subprocess.Popen(argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out,
                                             stderr=subprocess.STDOUT, start_new_session=True,
                                             preexec_fn=_die_with_parent)

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_seconds(self) -> float:
        """User and system time that it has taken so far; it has not ended."""
        # After the name in parentheses, which can hold anything: utime and stime are fields 14 and 15 of all.
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def exit_status(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    def stop(self, grace: float = 5.0) -> int:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()


def tail(path: Path, lines: int = 25) -> str:
    """The last lines of a log, with control characters made harmless for a terminal."""
    try:
        with open(path, "rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - 64 * 1024))
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return ""
    clean = "".join(c if c == "\n" or c == "\t" or c.isprintable() else "" for c in text)
    return "\n".join(line for line in clean.split("\n")[-lines - 1:] if line.strip())
