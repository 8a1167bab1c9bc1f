# SPDX-License-Identifier: GPL-2.0-or-later
"""How every command ends: exit codes, and the one exception that carries a message for the user."""

import enum


class ExitCode(enum.IntEnum):
    PASS = 0
    GUEST_FAILED = 1
    USAGE = 2
    TIME_LIMIT = 3
    ENVIRONMENT = 4


class UserError(Exception):
    """Something the user can act on. `message` says what and where, `remedy` what to do."""

    def __init__(self, code: ExitCode, message: str, remedy: str = ""):
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()
