# SPDX-License-Identifier: GPL-2.0-or-later
"""Long steps: run a program, show that it lives, keep its output in a log file.

All of this goes to standard error, so that a command's own output stays clean. On a terminal one line is rewritten
twice a second; elsewhere a line appears at the start, every half minute and at the end.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from umbra import interruption
from umbra.errors import ExitCode, UserError

_QUIET_INTERVAL = 30.0
_TTY_INTERVAL = 0.5
_TAIL_LINES = 12

# "[12/340] …" is ninja's; a line such as "  CC      mm/slab.o" is the kernel's make.
_NINJA = re.compile(rb"\[(\d+)/(\d+)\]")
_KBUILD = re.compile(rb"  [A-Z][A-Z0-9_]*(?: \[M\])? +\S")

# What explains a failure, as compilers, linkers, CMake and apt word it. Other output follows it in a parallel build.
_REASON = re.compile(rb"error: |Error at |undefined reference|No space left|^E: ", re.IGNORECASE)
_MAX_REASONS = 6


def duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


class Display:
    """The status line of one step. Use as a context; `count` and `total` may change at any time."""

    def __init__(self, title: str):
        self._title = title
        self._start = time.monotonic()
        self._done = threading.Event()
        self._tty = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._thread = threading.Thread(target=self._show, daemon=True)
        self.count = 0
        self.total = 0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def __enter__(self) -> "Display":
        if not self._tty:
            say(f"{self._title} …")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._done.set()
        self._thread.join()
        ending = "done" if kind is None else "failed"
        if self._tty:
            sys.stderr.write("\r\x1b[K")
        say(f"{self._title}: {ending} after {duration(self.elapsed)}")

    def _steps(self) -> str:
        if self.total:
            return f", step {self.count} of {self.total}"
        return f", {self.count} steps" if self.count else ""

    def _show(self) -> None:
        interval = _TTY_INTERVAL if self._tty else _QUIET_INTERVAL
        while not self._done.wait(interval):
            text = f"{self._title} … {duration(self.elapsed)}{self._steps()}"
            if self._tty:
                sys.stderr.write(f"\r\x1b[K{text[:os.get_terminal_size(2).columns - 1]}")
                sys.stderr.flush()
            else:
                say(text)

    def read_line(self, line: bytes) -> None:
        """Takes the count of steps from a line of ninja's or make's output."""
        match = _NINJA.match(line)
        if match:
            self.count, self.total = int(match[1]), int(match[2])
        elif _KBUILD.match(line):
            self.count += 1


class StepFailed(UserError):
    """A program ended with a failure. `title`: the step. `output`: what the program said, and the end of it."""

    def __init__(self, title: str, status: int, log: Path, output: str):
        reason = f"signal {-status}" if status < 0 else f"status {status}"
        super().__init__(ExitCode.ENVIRONMENT, f"{title} failed ({reason}); the log is {log}. It says:\n{output}\n")
        self.title = title
        self.log = log
        self.output = output


def tail(path: Path, lines: int = _TAIL_LINES) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 200 * lines))
        last = file.read().decode(errors="replace").splitlines()[-lines:]
    return "\n".join(f"  {line}" for line in last)


def run(title: str, command: Sequence[str | os.PathLike], log: Path, *, cwd: Path | None = None,
        env: Mapping[str, str] | None = None, keep_open: Sequence[int] = ()) -> None:
    """Runs `command` to its end; raises StepFailed if it does not succeed.

    Its output is appended to `log`. `keep_open`: file descriptors that it inherits, such as a lock that must outlive
    this process if it is killed. The command is a process group of its own and is ended with this process.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as sink, Display(title) as display:
        reasons: list[str] = []
        sink.write(("+ " + " ".join(map(str, command)) + "\n").encode())
        sink.flush()
        child = None
        try:
            with interruption.deferred():
                child = _start(title, command, cwd=cwd, env=env, pass_fds=tuple(keep_open))
            assert child.stdout is not None
            with child.stdout:
                for line in child.stdout:
                    sink.write(line)
                    display.read_line(line)
                    if len(reasons) < _MAX_REASONS and _REASON.search(line):
                        reasons.append("  " + line.decode(errors="replace").rstrip())
            status = child.wait()
        except BaseException:
            if child:
                _end_group(child)
            raise
        if status != 0:
            sink.flush()
            raise StepFailed(title, status, log, "\n".join([*reasons, "  …", tail(log)] if reasons else [tail(log)]))


def _start(title: str, command: Sequence[str | os.PathLike], **settings: Any) -> subprocess.Popen:
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                start_new_session=True, **settings)
    except OSError as error:
        raise UserError(ExitCode.ENVIRONMENT, f"{title}: cannot run {command[0]}: {error.strerror}.") from None


def _end_group(child: subprocess.Popen) -> None:
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, signal_number)
            child.wait(5)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
