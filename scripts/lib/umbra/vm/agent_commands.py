# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands of the guest's agent from the launcher's side: those that check a device, and those that write to one.

tests/guest/README.md describes the commands.
"""

import re
from collections.abc import Sequence

from umbra.errors import ExitCode, UserError

# Flush policies; what each sets is in tests/guest/README.md.
POLICIES = ("strict", "fq-domain", "fq-single", "fq-range")

# The testbed's disks are made for the run and belong to nobody.
TESTBED_CHECK = ("device", "workload verify size=4m", "dmesg-check")

_FIO_MODES_THAT_WRITE = {"write", "randwrite", "rw", "randrw"}


def guest_address(index: int) -> str:
    """Where the guest finds a passed-through device: each of guest.cfg's slots is a bus of its own."""
    return f"0000:{index + 1:02x}:00.0"


def read_only_check(devices: int) -> list[str]:
    """Checks that fit every kind of device, and write to none."""
    commands = []
    for index in range(devices):
        commands += [f"select {guest_address(index)}", "check"]
    return [*commands, "dmesg-check"]


def check_commands(commands: Sequence[str]) -> None:
    """Refuses what is not one command: the agent takes a line as one, and answers nothing to an empty one."""
    for command in commands:
        if not command.strip(" \t"):
            raise UserError(ExitCode.USAGE, "--run is given an empty command.")
        if any((ord(character) < 0x20 and character != "\t") or ord(character) == 0x7F for character in command):
            raise UserError(ExitCode.USAGE, f"--run {command!r}: a command is one line, without control characters.",
                            "Give --run once for each command.")


def writes(command: str) -> bool:
    """True if a command overwrites what is on the device under test. What `exec` runs is not looked at."""
    # As the guest's shell splits; str.split() would split at further characters.
    words = re.split("[ \t]+", command.strip(" \t"))
    if words[:1] != ["workload"]:
        return False
    keys = dict(word.partition("=")[::2] for word in words[2:])
    match words[1:2]:
        case ["verify"]:
            return keys.get("phase") != "read"
        case ["fio"]:
            return keys.get("rw") in _FIO_MODES_THAT_WRITE
    return False


def refuse_writes(commands: Sequence[str]) -> None:
    """Raises for the first command that would destroy data."""
    for command in commands:
        if writes(command):
            raise UserError(ExitCode.USAGE, f"'{command}' overwrites what is on the passed-through disk.",
                            "Add --destroy-data if nothing on it is needed any more.")
