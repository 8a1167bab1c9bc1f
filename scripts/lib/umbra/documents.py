# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON files that one run leaves and another reads. Each says which kind of file it is, and the version of its form."""

import json
from collections.abc import Mapping
from pathlib import Path

from umbra.errors import ExitCode, UserError


def head(kind: str, schema: int) -> dict:
    """What a file of that kind begins with."""
    return {"kind": kind, "schema": schema}


def load(path: Path, option: str, kind: str, schema: int, parts: Mapping[str, type]) -> dict:
    """The content of a file that `option` names. `parts`: what it must hold, with types.

    A file without a kind, as older runs left them, is told by its parts. Raises UserError, with one sentence.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UserError(ExitCode.USAGE, f"{option} {path}: {error.strerror}.") from None
    except ValueError as error:
        raise UserError(ExitCode.USAGE, f"{option} {path} is no JSON: {error}.") from None
    wanted = f"not a {kind} of schema {schema}"
    if not isinstance(content, dict):
        raise UserError(ExitCode.USAGE, f"{option} {path}: {wanted}.")
    if content.get("kind", kind) != kind:
        raise UserError(ExitCode.USAGE, f"{option} {path}: {wanted}, but a {content['kind']}.")
    if content.get("schema") != schema or not all(isinstance(content.get(name), of) for name, of in parts.items()):
        raise UserError(ExitCode.USAGE, f"{option} {path}: {wanted}.")
    return content


def damaged(path: Path, option: str) -> UserError:
    """For a file of the right kind whose parts do not fit together."""
    return UserError(ExitCode.USAGE, f"{option} {path} is damaged: a part of it is missing or of another kind.")
