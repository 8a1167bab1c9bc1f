# SPDX-License-Identifier: GPL-2.0-or-later
"""One running guest: boots it, watches it, gives commands to its agent."""

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from umbra.errors import ExitCode, UserError
from umbra.vm.config import GuestConfig
from umbra.vm.host import GuestHost
from umbra.vm.ports import NotJson, Port, PortClosed, PortTimeout, Recorder
from umbra.vm.process import tail
from umbra.vm.qmp import Qmp

_PANIC = b"Kernel panic - not syncing"

# What to call at which phase of a command.
Phases = Mapping[str, Callable[[], object]]


@dataclasses.dataclass
class AgentResult:
    """The agent's answer to one command; tests/guest/README.md describes the fields."""
    command: str
    status: int
    error: str | None
    data: dict

    @property
    def ok(self) -> bool:
        return self.status == 0


class Guest:
    """Boots on entry of a `with` block and is gone at its end, however that is reached.

    `limit`: seconds for all of the guest's life, from the start of its QEMU.
    """

    def __init__(self, host: GuestHost, config: GuestConfig, limit: float, echo: Callable[[str], object] | None = None):
        config.check()
        self.host = host
        self.config = config
        self._limit = limit
        self._echo = echo
        self._console: Recorder | None = None
        self._console_seen = 0   # a panic before this offset was wanted
        self.ready: dict = {}
        self.deadline = 0.0
        # They come with the boot.
        self.console_port: Port
        self._agent: Port
        self.qmp: Qmp

    @property
    def console_log(self) -> Path:
        return self.host.rundir / "guest-console.log"

    def __enter__(self) -> "Guest":
        try:
            self._boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _boot(self) -> None:
        self.host.start(self.config, time.monotonic() + 300)
        self.deadline = time.monotonic() + self._limit
        console = self.host.port("console", self.deadline)
        self.console_port = console
        self._console = Recorder(console, self.console_log, self._echo)
        self._console.start()
        self._agent = self.host.port("guest", self.deadline)
        self.qmp = Qmp(self.host.port("qmp", self.deadline))
        self.host.start_guest(self.host.guest_command_line(self.config))

    def wait_ready(self) -> dict:
        """Waits for the agent. Raises UserError with the console's tail if it does not come."""
        self.ready = self._next_event("boot", {"ready"})
        return self.ready

    def command(self, line: str, phases: Phases | None = None) -> AgentResult:
        """Runs one agent command to its result.

        `phases` (a dict phase name -> callable) is for commands with barrier=yes: each callable is
        called while the agent waits at that phase.
        """
        self._agent.write(line.encode() + b"\n", self.deadline)
        while True:
            event = self._next_event(line, {"phase", "result"})
            if event["event"] == "result":
                return AgentResult(line, int(event.get("status", 1)), event.get("error"),
                                   event.get("data") or {})
            if phases and event.get("phase") in phases:
                phases[event["phase"]]()
            self._agent.write(b"go\n", self.deadline)

    def wait_end(self) -> int:
        """Waits until QEMU has ended by itself; returns its status."""
        while True:
            status = self.host.guest_exit_status()
            if status is not None:
                return status
            if time.monotonic() > self.deadline:
                raise self._time_limit("the guest's end")
            time.sleep(0.25)

    def power_off(self) -> None:
        self.command("poweroff")
        self.wait_end()

    def reboot(self) -> dict:
        """Has the guest reboot; returns what the agent says when it is up again."""
        self.qmp.execute("set-action", reboot="reset")
        self.command("reboot")
        return self.wait_ready()

    def crash(self) -> dict:
        """Has the guest's kernel panic and, as it does then, reboot; returns as `reboot` does."""
        self.qmp.execute("set-action", reboot="reset")
        self.command("crash")
        while not self.panicked():
            if time.monotonic() > self.deadline:
                raise self._time_limit("the kernel's panic")
            time.sleep(0.1)
        self._console_seen += self._unseen_console().index(_PANIC) + len(_PANIC)
        return self.wait_ready()

    def panicked(self) -> bool:
        return _PANIC in self._unseen_console()

    def _unseen_console(self) -> bytes:
        try:
            with open(self.console_log, "rb") as log:
                log.seek(self._console_seen)
                return log.read()
        except OSError:
            return b""

    def close(self) -> None:
        if self._console:
            self._console.stop()
        self.host.close()

    def _next_event(self, what: str, kinds: set[str]) -> dict:
        while True:
            try:
                event = self._agent.read_object(min(self.deadline, time.monotonic() + 2))
            except PortClosed:
                raise self._failed(what) from None
            except NotJson as line:
                raise UserError(ExitCode.GUEST_FAILED,
                                f"The guest's agent sent a line that is no JSON ({what}): {line}.") from None
            except PortTimeout:
                if self.host.guest_exit_status() is not None or self.panicked():
                    raise self._failed(what) from None
                if time.monotonic() > self.deadline:
                    raise self._time_limit(what) from None
                continue
            if event.get("event") in kinds:
                return event

    def _time_limit(self, what: str) -> UserError:
        return UserError(ExitCode.TIME_LIMIT,
                         f"The guest reached its time limit of {self._limit:.0f} s ({what}). "
                         f"Its console ({self.console_log}) ends:\n{tail(self.console_log)}")

    def _failed(self, what: str) -> UserError:
        if self.panicked():
            return UserError(ExitCode.GUEST_FAILED,
                             f"The guest kernel panicked ({what}). Its console ({self.console_log}) "
                             f"ends:\n{tail(self.console_log)}")
        console = tail(self.console_log)
        if not console:
            return UserError(ExitCode.ENVIRONMENT,
                             f"QEMU did not start the guest:\n{self.host.describe_failure()}")
        return UserError(ExitCode.GUEST_FAILED,
                         f"The guest ended too early ({what}). QEMU says:\n"
                         f"{self.host.describe_failure()}\n"
                         f"Its console ({self.console_log}) ends:\n{console}")


def fresh_directory(path: Path) -> Path:
    """An empty folder for a run's logs. A link to a folder stays, and its target is emptied."""
    path = path.resolve()
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path
