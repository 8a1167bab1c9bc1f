# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a regression run can be trusted: patches that are broken on purpose have to be caught; and whether a series
can be bisected: every prefix of it has to build and boot."""

import dataclasses
import json
from pathlib import Path

from umbra import project
from umbra.building import patches
from umbra.regress import subject
from umbra.regress.baseline import Baseline
from umbra.regress.direct import Kunit, PlainBoot, Releases
from umbra.regress.lab import Lab
from umbra.regress.matrix import Matrix
from umbra.regress.scene import Failed, Outcome, Record, Scene, Verdict, play
from umbra.regress.subject import BuildFailed, SubjectOptions

BROKEN = project.TREE / "tests" / "regress" / "broken-patches"
_EXPECTED = BROKEN / "expected.json"


def broken_patches(options: SubjectOptions, viommu: str) -> list[Scene]:
    """A scene a broken patch, before them one that shows that the same cases pass without any."""
    expected = _expectations(viommu)
    every = [case for cases in expected.values() for case in cases]
    return [Sound(options, viommu, list(dict.fromkeys(every))),
            *(Broken(options, viommu, BROKEN / name, cases) for name, cases in expected.items())]


def _expectations(viommu: str) -> dict[str, list[str]]:
    """Patch -> cases that fail with it."""
    content = json.loads(_EXPECTED.read_text())
    return {name: [case.replace("VIOMMU", viommu) for case in cases] for name, cases in sorted(content.items())}


class _Judged(Scene):
    """Runs ordinary cases on a kernel and judges their outcomes, which are not part of the report."""

    def __init__(self, case: str, options: SubjectOptions, viommu: str, inner: list[str]):
        self._case = case
        self._options = options
        self._viommu = viommu
        self._inner = inner

    def cases(self) -> list[str]:
        return [self._case]

    def run(self, lab: Lab, record: Record) -> None:
        try:
            lab.subject = subject.obtain(self._options)
        except BuildFailed as error:
            record.settle(Verdict.FAIL, str(error), self._case)
            return
        outcomes: list[Outcome] = []
        inner = Record(self._inner, outcomes.append)
        scenes = [Kunit(), Releases(self._viommu), Matrix(self._viommu, Baseline(Path()), update_baseline=False)]
        play(scenes, lab, inner)
        record.run(self._case, lambda notes: self.judge(outcomes, notes))

    def judge(self, outcomes: list[Outcome], notes: list[str]) -> None:
        raise NotImplementedError


class Sound(_Judged):
    def __init__(self, options: SubjectOptions, viommu: str, inner: list[str]):
        super().__init__("self-test/sound", options, viommu, inner)

    def judge(self, outcomes: list[Outcome], notes: list[str]) -> None:
        for outcome in outcomes:
            notes.append(f"{outcome.verdict.value} {outcome.case}: {', '.join(outcome.notes)}")
        bad = [outcome for outcome in outcomes if outcome.verdict is not Verdict.PASS]
        if bad:
            raise Failed("\n".join(f"{outcome.case} does not pass without a broken patch: {outcome.reason}"
                                   for outcome in bad))


class Broken(_Judged):
    def __init__(self, options: SubjectOptions, viommu: str, patch: Path, inner: list[str]):
        super().__init__(f"self-test/{patch.stem}", dataclasses.replace(options, extra=(patch,)), viommu, inner)

    def judge(self, outcomes: list[Outcome], notes: list[str]) -> None:
        missed = [outcome.case for outcome in outcomes if outcome.verdict is not Verdict.FAIL]
        for outcome in outcomes:
            first_line = outcome.reason.partition("\n")[0]
            notes.append(f"{outcome.verdict.value} {outcome.case}: {first_line}")
        if missed:
            raise Failed(f"Not caught by {', '.join(missed)}.")


class Prefix(Scene):
    """The first `count` patches of a series build and boot."""

    def __init__(self, options: SubjectOptions, viommu: str, series: list[Path], count: int):
        self._patches = series[:count]
        self._options = options
        self._viommu = viommu
        self._case = f"each-patch/{series[count - 1].stem}"

    def cases(self) -> list[str]:
        return [self._case]

    def run(self, lab: Lab, record: Record) -> None:
        try:
            lab.subject = subject.obtain_series(self._options, self._patches)
        except BuildFailed as error:
            record.settle(Verdict.FAIL, str(error), self._case)
            return
        PlainBoot(self._case, self._viommu).run(lab, record)


def each_patch(options: SubjectOptions, viommu: str) -> list[Scene]:
    series = patches.series(options.patches) if options.patches else []
    return [Prefix(options, viommu, series, count) for count in range(1, len(series) + 1)]
