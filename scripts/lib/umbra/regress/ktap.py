# SPDX-License-Identifier: GPL-2.0-or-later
"""KTAP, version 1 (Linux: Documentation/dev-tools/ktap.rst): what we report in, and what KUnit reports in."""

import dataclasses
import re
from typing import TextIO

from umbra.regress.scene import Outcome, Verdict


class Writer:
    """Writes results as they come: the diagnostics of a case first, then its line."""

    def __init__(self, out: TextIO, count: int):
        self._out = out
        self._number = 0
        self._print("KTAP version 1", f"1..{count}")

    def _print(self, *lines: str) -> None:
        for line in lines:
            print(line, file=self._out, flush=True)

    def result(self, outcome: Outcome) -> None:
        self._number += 1
        texts = list(outcome.notes)
        if outcome.verdict is Verdict.FAIL:
            texts.append(outcome.reason)
        self._print(*(f"# {line}".rstrip() for text in texts for line in text.splitlines()))
        word = "not ok" if outcome.verdict is Verdict.FAIL else "ok"
        directive = ""
        if outcome.verdict is Verdict.SKIP:
            directive = " # SKIP " + " ".join(outcome.reason.split())
        self._print(f"{word} {self._number} {outcome.case}{directive}")

    def bail_out(self, reason: str) -> None:
        self._print("Bail out! " + " ".join(reason.split()))


@dataclasses.dataclass(frozen=True)
class Result:
    """One result line of a report. `depth`: 0 for the outermost."""
    depth: int
    name: str
    passed: bool
    skipped: bool


_RESULT = re.compile(r"^(?:\[[\s\d.]+\]\s?)?(?P<indent> *)(?P<bad>not )?ok \d+ ?(?:- )?(?P<name>[^#]*)"
                     r"(?:#\s*(?P<directive>\w+).*)?$")


def parse(text: str) -> list[Result]:
    """The result lines of a report, in order. Other lines, also time stamps of the kernel's log, are passed over."""
    results = []
    for line in text.splitlines():
        match = _RESULT.match(line)
        if match:
            results.append(Result(len(match["indent"]) // 4, match["name"].strip(), not match["bad"],
                                  (match["directive"] or "").upper() == "SKIP"))
    return results
