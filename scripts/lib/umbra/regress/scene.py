# SPDX-License-Identifier: GPL-2.0-or-later
"""Cases, their outcomes, and the scenes that decide them."""

import abc
import dataclasses
import enum
import fnmatch
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from umbra.errors import ExitCode, UserError

if TYPE_CHECKING:
    from umbra.regress.lab import Lab


class Verdict(enum.Enum):
    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


class Failed(Exception):
    """The kernel does not keep a promise; the text says which."""


class Skipped(Exception):
    """This kernel or machine has nothing to try the case on; the text says why."""


@dataclasses.dataclass
class Outcome:
    """`reason`: why it failed or was skipped. `notes`: what was seen, also if it passed."""
    case: str
    verdict: Verdict
    reason: str = ""
    notes: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


# What a case runs: it adds to the notes, and ends by Failed or Skipped if it does not pass.
Check = Callable[[list[str]], None]


class Record:
    """Takes the outcomes of the chosen cases, each once, and hands them on in the order in which they are decided."""

    def __init__(self, chosen: Iterable[str], sink: Callable[[Outcome], None]):
        self._open = dict.fromkeys(chosen)
        self._sink = sink
        self.outcomes: list[Outcome] = []

    def wants(self, *patterns: str) -> bool:
        """True if a chosen case that matches one of the patterns is not decided yet."""
        return bool(self.open_cases(*patterns))

    def open_cases(self, *patterns: str) -> list[str]:
        return [case for case in self._open if any(fnmatch.fnmatchcase(case, pattern) for pattern in patterns)]

    def run(self, case: str, check: Check) -> None:
        """Runs the check if its case is chosen. What ends the guest (UserError) ends the case, and is passed on."""
        if case not in self._open:
            return
        outcome = Outcome(case, Verdict.PASS)
        start = time.monotonic()
        ended: UserError | None = None
        try:
            check(outcome.notes)
        except Failed as failure:
            outcome.verdict, outcome.reason = Verdict.FAIL, str(failure)
        except Skipped as reason:
            outcome.verdict, outcome.reason = Verdict.SKIP, str(reason)
        except UserError as error:
            if error.code == ExitCode.ENVIRONMENT:
                raise
            outcome.verdict, outcome.reason, ended = Verdict.FAIL, str(error), error
        outcome.seconds = time.monotonic() - start
        self._take(outcome)
        if ended:
            raise ended

    def settle(self, verdict: Verdict, reason: str, *patterns: str) -> None:
        """Decides all open cases that match, without running anything."""
        for case in self.open_cases(*patterns):
            self._take(Outcome(case, verdict, reason))

    def _take(self, outcome: Outcome) -> None:
        del self._open[outcome.case]
        self.outcomes.append(outcome)
        self._sink(outcome)

    @property
    def failed(self) -> bool:
        return any(outcome.verdict is Verdict.FAIL for outcome in self.outcomes)


class Scene(abc.ABC):
    """`lab` and `subject` come with run(), so that the cases can be listed without building anything."""

    @abc.abstractmethod
    def cases(self) -> list[str]:
        """Names of all cases, in the order in which they are decided."""

    @abc.abstractmethod
    def run(self, lab: "Lab", record: Record) -> None:
        """Decides the chosen cases. A UserError that is no environment error leaves the rest as failed."""


def play(scenes: Iterable[Scene], lab: "Lab", record: Record) -> None:
    """Runs the scenes that have a chosen case. Only an environment error ends this early."""
    for scene in scenes:
        if not record.wants(*scene.cases()):
            continue
        try:
            scene.run(lab, record)
        except UserError as error:
            if error.code == ExitCode.ENVIRONMENT:
                raise
            record.settle(Verdict.FAIL, str(error), *scene.cases())
        record.settle(Verdict.FAIL, "The guest did not get that far.", *scene.cases())


def choose(scenes: Iterable[Scene], patterns: list[str]) -> list[str]:
    """Names of the cases that match, in order; all of them without a pattern."""
    every = [case for scene in scenes for case in scene.cases()]
    if not patterns:
        return every
    chosen = [case for case in every if any(fnmatch.fnmatchcase(case, pattern) for pattern in patterns)]
    for pattern in patterns:
        if not fnmatch.filter(every, pattern):
            raise UserError(ExitCode.USAGE, f"--only {pattern}: no case matches.", "--list names them.")
    return chosen
