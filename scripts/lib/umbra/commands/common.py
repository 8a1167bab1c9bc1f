# SPDX-License-Identifier: GPL-2.0-or-later
"""What all commands share: option parsing, the exit code, the one sentence on failure, clean ends."""

import argparse
import io
import signal
import sys
import textwrap
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from umbra.errors import ExitCode, UserError


class Parser(argparse.ArgumentParser):
    """argparse, but a usage error is one sentence and names --help."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        settings.setdefault("allow_abbrev", False)
        settings["description"] = textwrap.fill(settings["description"], 100)
        super().__init__(**settings)

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}. See {self.prog} --help.\n")


def add_common_options(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--offline", action="store_true",
                        help="never use the network; name what is missing instead")
    parser.add_argument("--update", action="store_true",
                        help="ask the archive for newer sources (default: keep those that are built)")


def _end_as_interrupted(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def run(main: Callable[[], int | None], name: str) -> None:
    """Runs a command's main function and ends the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A locale without µ or … is no reason to end.
            stream.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, _end_as_interrupted)
    signal.signal(signal.SIGHUP, _end_as_interrupted)
    try:
        code = main() or ExitCode.PASS
        sys.stdout.flush()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        code = error.code
    except KeyboardInterrupt:
        print(f"{name}: interrupted.", file=sys.stderr)
        code = 128 + signal.SIGINT
    except BrokenPipeError:
        sys.stderr.close()
        code = ExitCode.ENVIRONMENT
    except OSError as error:
        print(f"{name}: {error.strerror or error}: {error.filename or 'no file named'}.", file=sys.stderr)
        code = ExitCode.ENVIRONMENT
    sys.exit(int(code))
