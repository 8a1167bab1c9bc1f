# SPDX-License-Identifier: GPL-2.0-or-later
"""The generated part of tests/bench/README.md, and the plots that it shows."""

import os
import shutil
from pathlib import Path

from umbra.bench import report
from umbra.cache import write_atomically
from umbra.errors import ExitCode, UserError
from umbra.project import TREE

BENCH = TREE / "tests/bench"
BEGIN = "<!-- The rest, down to the end mark, is written by scripts/bench --publish. -->"
END = "<!-- End of what scripts/bench --publish writes. -->"


def between_marks(page: str, text: str) -> str:
    """The page with `text` between the marks. Raises ValueError if they are not there once and in order."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError("the marks of the generated part are not there, once each and in order")
    return f"{page[:page.index(BEGIN)]}{BEGIN}\n\n{text}\n\n{page[page.index(END):]}"


def generated(result: dict, plots: list[tuple[str, str]]) -> str:
    """`plots`: file name and caption of each."""
    images = "\n\n".join(f"![{caption}](plots/{name})" for name, caption in plots)
    return f"{images}\n\n{report.render(result, markdown=True)}" if images else report.render(result, True)


def publish(result: dict, folder: Path, plots: list[tuple[str, str]], bench: Path = BENCH) -> Path:
    """Rewrites the page and its plots, which lie in `folder`; returns the page."""
    page = bench / "README.md"
    try:
        text = between_marks(page.read_text(), generated(result, plots))
    except ValueError as error:
        raise UserError(ExitCode.ENVIRONMENT, f"{page}: {error}.", "Take it as it is in git.") from None
    target = bench / "plots"
    target.mkdir(exist_ok=True)
    for old in target.glob("*.svg"):
        old.unlink()
    for name, _ in plots:
        shutil.copyfile(folder / name, target / name)
        os.chmod(target / name, 0o644)
    write_atomically(page, text)
    return page
