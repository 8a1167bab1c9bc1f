# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables for people: coloured on a terminal, plain in a pipe, Markdown for documents."""

import os
import sys
from typing import TextIO

_BOLD, _DIM, _RESET = "\033[1m", "\033[2m", "\033[0m"


def quantity(value: float | None, digits: int = 0) -> str:
    """A number with thousands separated; what was not measured is a dash."""
    return "-" if value is None else f"{value:,.{digits}f}"


def has_colour(stream: TextIO) -> bool:
    """True for a terminal that has colours and a user who has not turned them off (no-color.org)."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def render(header: list[str], rows: list[list[str]], markdown: bool = False,
           colour: bool | None = None, text_columns: int = 1) -> str:
    """`text_columns`: how many leading columns are left-aligned; the others are numbers."""
    if markdown:
        marks = ["---"] * text_columns + ["---:"] * (len(header) - text_columns)
        lines = [header, marks, *rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    if colour is None:
        colour = has_colour(sys.stdout)
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        return "  ".join(cell.ljust(width) if i < text_columns else cell.rjust(width)
                         for i, (cell, width) in enumerate(zip(cells, widths, strict=True))).rstrip()

    head = line(header)
    out = [f"{_BOLD}{head}{_RESET}" if colour else head]
    previous = None
    for row in rows:
        text = line(row)
        # A group (same first column) is set off by dimming its repeated name.
        if colour and row[0] == previous:
            text = f"{_DIM}{text[:widths[0]]}{_RESET}{text[widths[0]:]}"
        previous = row[0]
        out.append(text)
    return "\n".join(out)
