# SPDX-License-Identifier: GPL-2.0-or-later
"""The testbed host's agent: one command at a time, each answered by exactly one result.

A caller may stop waiting before the answer is there, on a busy machine. That answer still comes, and must not pass
for that of the next command. So answers are counted, and those that nobody waits for any more are passed over.
"""

import base64
import time

from umbra.errors import ExitCode, UserError
from umbra.vm.ports import NotJson, Port, PortTimeout


class HostAgent:
    """tests/guest/README.md describes the protocol."""

    def __init__(self, port: Port):
        self._port = port
        self._unanswered = 0

    def ready(self, deadline: float) -> dict:
        """What the agent says once, when it is up."""
        while True:
            event = self._next_event("boot", deadline)
            if event.get("event") == "ready":
                return event

    def ask(self, line: str, timeout: float) -> dict:
        """The result of a command. Raises PortTimeout or PortClosed if there is none, UserError if it is no JSON."""
        deadline = time.monotonic() + timeout
        self._port.write(line.encode() + b"\n", deadline)
        self._unanswered += 1
        while True:
            reply = self._next_event(line.split()[0], deadline)
            if reply.get("event") == "result":
                self._unanswered -= 1
                if self._unanswered == 0:
                    return reply

    def job_exit_status(self, name: str, timeout: float = 30.0) -> int | None:
        """The exit status of a spawned script once the agent has said that it ended, else None.

        No answer means that the host is busy, and says nothing about the script.
        """
        try:
            reply = self.ask(f"job {name}", timeout)
        except PortTimeout:
            return None
        if reply.get("running") is not False:
            return None
        # Null for the moment between the script's end and its status.
        status = reply.get("exit_status")
        return None if status is None else int(status)

    def _next_event(self, what: str, deadline: float) -> dict:
        try:
            return self._port.read_object(deadline)
        except NotJson as line:
            raise UserError(ExitCode.ENVIRONMENT,
                            f"The testbed host's agent sent a line that is no JSON ({what}): {line}.") from None

    def close(self) -> None:
        self._port.close()


def encoded(script: str) -> str:
    """A script as the agent takes it, in one word."""
    return base64.b64encode(script.encode()).decode()


def decoded(text: str | None) -> str:
    """A stream of a script, from its result."""
    return base64.b64decode(text or "").decode("utf-8", "replace")
