# SPDX-License-Identifier: GPL-2.0-or-later
"""The project's own tree: where it lies and which state of it this is."""

import subprocess
from pathlib import Path

TREE = Path(__file__).resolve().parents[3]


def version() -> str | None:
    """Which state of the project this is, as git names it; None outside of a git clone."""
    try:
        reply = subprocess.run(["git", "-C", TREE, "describe", "--always", "--dirty", "--tags"], capture_output=True,
                               text=True, check=False)
    except OSError:
        return None
    return reply.stdout.strip() or None
