# SPDX-License-Identifier: GPL-2.0-or-later
"""Which scenes a regression run has, and their order."""

import dataclasses
from pathlib import Path

from umbra import project
from umbra.building import kernel_config
from umbra.regress import selftest, subject
from umbra.regress.baseline import Baseline
from umbra.regress.direct import Kunit, Releases
from umbra.regress.lab import Lab
from umbra.regress.matrix import Matrix
from umbra.regress.scene import Record, Scene, Verdict, choose
from umbra.regress.subject import BuildFailed, SubjectOptions

VIOMMUS = ("umbra", "qemu-intel")
BASELINE = project.TREE / "tests" / "regress" / "baseline.json"
BUILD_CASE = "build"


@dataclasses.dataclass
class RegressOptions:
    """What to test. `kernel`: an image, with `modules`. Otherwise a build: of `kernel_source` or Debian's source, with
    `patches` (a series) and `extra_patch`. `only`: patterns of names of cases. An empty `viommu`: all of VIOMMUS."""
    patches: Path | None = None
    extra_patch: list[Path] = dataclasses.field(default_factory=list)
    kernel_source: Path | None = None
    kernel: Path | None = None
    modules: list[Path] = dataclasses.field(default_factory=list)
    debug: bool = False
    viommu: list[str] = dataclasses.field(default_factory=list)
    only: list[str] = dataclasses.field(default_factory=list)
    self_test: bool = False
    each_patch: bool = False
    update_baseline: bool = False
    offline: bool = False


def subject_options(options: RegressOptions) -> SubjectOptions:
    series = options.patches
    if series is None and not options.kernel and not options.kernel_source:
        series = kernel_config.SERIES
    return SubjectOptions(
        image=options.kernel.resolve() if options.kernel else None,
        modules=tuple(path.resolve() for path in options.modules),
        source=options.kernel_source.resolve() if options.kernel_source else None,
        patches=series.resolve() if series else None,
        extra=tuple(path.resolve() for path in options.extra_patch), debug=options.debug, offline=options.offline)


class Build(Scene):
    """The kernel compiles. All that follows needs it."""

    def __init__(self, options: SubjectOptions):
        self._options = options

    def cases(self) -> list[str]:
        return [BUILD_CASE]

    def run(self, lab: Lab, record: Record) -> None:
        try:
            lab.subject = subject.obtain(self._options)
        except BuildFailed as error:
            record.settle(Verdict.FAIL, str(error), BUILD_CASE)
            record.settle(Verdict.FAIL, "The kernel was not built.", "*")
            return
        record.run(BUILD_CASE, lambda notes: notes.append(f"Linux {lab.subject.name}"))


def scenes_of(options: RegressOptions, baseline: Baseline) -> list[Scene]:
    what = subject_options(options)
    viommus = options.viommu or list(VIOMMUS)
    if options.self_test:
        return selftest.broken_patches(what, viommus[0])
    if options.each_patch:
        return selftest.each_patch(what, viommus[0])
    return [Build(what), Kunit(), *(Releases(viommu) for viommu in viommus),
            *(Matrix(viommu, baseline, options.update_baseline) for viommu in viommus)]


def chosen_cases(options: RegressOptions, scenes: list[Scene]) -> list[str]:
    chosen = choose(scenes, options.only)
    needs_build = not options.self_test and not options.each_patch
    return [BUILD_CASE, *(case for case in chosen if case != BUILD_CASE)] if needs_build else chosen
