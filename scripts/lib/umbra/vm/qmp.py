# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's machine protocol (QMP) over a port."""

import json
import time
from typing import Any

from umbra.vm.ports import NotJson, Port


class QmpError(Exception):
    """QEMU refused a command, or its answer is no JSON."""


class Qmp:
    def __init__(self, port: Port):
        self._port = port
        self._ready = False
        self.events: list[dict] = []

    def execute(self, command: str, timeout: float = 60.0, **arguments: Any) -> Any:
        """Runs one command and returns its result. Events that come meanwhile are kept."""
        deadline = time.monotonic() + timeout
        if not self._ready:
            while "QMP" not in self._next_message(deadline):
                pass
            self._ready = True
            self.execute("qmp_capabilities", timeout)
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        self._port.write(json.dumps(request).encode() + b"\n", deadline)
        while True:
            reply = self._next_message(deadline)
            if "event" in reply:
                self.events.append(reply)
            elif "error" in reply:
                raise QmpError(f"{command}: {reply['error'].get('desc')}")
            elif "return" in reply:
                return reply["return"]

    def _next_message(self, deadline: float) -> dict:
        try:
            return self._port.read_object(deadline)
        except NotJson as line:
            raise QmpError(f"QEMU sent a line that is no JSON: {line}") from None
