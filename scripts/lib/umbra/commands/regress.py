# SPDX-License-Identifier: GPL-2.0-or-later
"""regress: builds a kernel with patches, boots it, and checks its flush policies. Reports in KTAP."""

import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from umbra import project
from umbra.building import kernel_image, patches
from umbra.commands import common
from umbra.errors import ExitCode, UserError
from umbra.regress import junit, ktap
from umbra.regress.baseline import Baseline
from umbra.regress.lab import Lab
from umbra.regress.run import BASELINE, VIOMMUS, RegressOptions, chosen_cases, scenes_of
from umbra.regress.scene import Outcome, Record, Verdict, play

# Seconds for the life of one guest. A kernel with lockdep and KASAN is several times slower.
_LIMIT, _DEBUG_LIMIT = 900.0, 3600.0

EPILOG = """\
examples:
  scripts/regress                                    our series on Debian's source
  scripts/regress --patches my-series --viommu qemu-intel --junit report.xml
  scripts/regress --kernel-source ~/linux --patches my-series --only 'umbra/fq-range/*'
  scripts/regress --kernel my/bzImage --modules my/modules
  scripts/regress --extra-patch tests/regress/broken-patches/sends-dsi.patch
  scripts/regress --self-test                        each of the broken patches is caught
  scripts/regress --each-patch                       each patch of the series builds and boots without the later ones

Standard output has the report, in KTAP version 1; progress goes to standard error.
exit codes: 0 all passed or were skipped, 1 a case failed, 2 usage, 4 this machine cannot do it
"""


@dataclasses.dataclass
class CommandLine(RegressOptions):
    list: bool = False
    timeout: float | None = None
    junit: Path | None = None
    baseline: Path | None = None
    out: Path | None = None


def parse(arguments: list[str]) -> CommandLine:
    parser = common.Parser(prog="regress", epilog=EPILOG, description=(
        "Builds a kernel with patches, boots it as a guest behind a caching-mode vIOMMU, and checks each flush policy: "
        "data, faults, the order of releases, and which invalidations are sent."))
    which = parser.add_argument_group("the kernel under test")
    which.add_argument("--patches", type=Path, metavar="DIR",
                       help="a series of patches (default: guest-kernel-patches/linux-6.12; with "
                       "--kernel-source: none)")
    which.add_argument("--extra-patch", type=Path, metavar="FILE", action="append", default=[],
                       help="one more patch on top of the series (repeatable)")
    which.add_argument("--kernel-source", type=Path, metavar="DIR",
                       help="a kernel tree to use instead of Debian's; it is not written to")
    which.add_argument("--kernel", type=Path, metavar="BZIMAGE", help="an image that is built already")
    which.add_argument("--modules", type=Path, metavar="DIR", action="append", default=[],
                       help="with --kernel: folder with its modules (umbra_dma_hold, KUnit); repeatable")
    which.add_argument("--debug", action="store_true",
                       help="with lockdep and KASAN (qemu-configs/kernel/debug.config); several times slower")
    what = parser.add_argument_group("what is run")
    what.add_argument("--viommu", action="append", default=[], choices=VIOMMUS,
                      help="a vIOMMU to boot behind (repeatable; default: both)")
    what.add_argument("--only", action="append", metavar="PATTERN", default=[],
                      help="only cases whose name matches, such as '*/fq-range/*' (repeatable)")
    what.add_argument("--list", action="store_true", help="list the cases and stop")
    what.add_argument("--timeout", type=float, metavar="SECONDS",
                      help=f"limit for the life of each guest (default {_LIMIT:.0f}, with --debug {_DEBUG_LIMIT:.0f})")
    mode = what.add_mutually_exclusive_group()
    mode.add_argument("--self-test", action="store_true",
                      help="apply each of tests/regress/broken-patches and see it fail")
    mode.add_argument("--each-patch", action="store_true", help="build and boot every prefix of the series")
    told = parser.add_argument_group("what is told")
    told.add_argument("--junit", type=Path, metavar="FILE", help="also write JUnit XML")
    told.add_argument("--baseline", type=Path, metavar="FILE",
                      help="invalidation counts to compare with (default: tests/regress/baseline.json)")
    told.add_argument("--update-baseline", action="store_true", help="store the counts instead of comparing them")
    told.add_argument("--out", type=Path, metavar="DIR", help="folder for logs (default: below build/regress/)")
    told.add_argument("--offline", action="store_true", help="never use the network; name what is missing instead")
    options = parser.parse_args(arguments, CommandLine())
    check(options)
    return options


def refuse(sentence: str, remedy: str = "") -> NoReturn:
    raise UserError(ExitCode.USAGE, sentence, remedy)


def check(options: CommandLine) -> None:
    """Refuses options that exclude each other, and files that cannot be what they are named for."""
    check_combination(options)
    check_files(options)
    if options.timeout is not None and options.timeout <= 0:
        refuse(f"--timeout {options.timeout:g}: seconds, more than 0.")


def check_combination(options: CommandLine) -> None:
    if options.kernel and (options.kernel_source or options.patches or options.extra_patch or options.debug):
        refuse("--kernel does not go with --kernel-source, --patches, --extra-patch or --debug.",
               "An image is tested as it is.")
    if options.modules and not options.kernel:
        refuse("--modules goes with --kernel only.", "What is built here brings its modules along.")
    if (options.self_test or options.each_patch) and (options.kernel or options.kernel_source):
        refuse("--self-test and --each-patch build Debian's source; they do not go with --kernel or --kernel-source.")
    if options.self_test and (options.patches or options.extra_patch or options.update_baseline):
        refuse("--self-test applies its own patches to our own series.")


def check_files(options: CommandLine) -> None:
    for folder in options.modules:
        if not folder.is_dir():
            refuse(f"--modules {folder}: no such folder.")
    if options.kernel:
        kernel_image.check_bzimage(options.kernel)
    if options.kernel_source:
        kernel_image.check_source(options.kernel_source)
    if options.patches:
        patches.series(options.patches)
    for patch in options.extra_patch:
        if not patch.is_file():
            refuse(f"--extra-patch {patch}: no such file.")
        patches.files_named_by(patch)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    baseline = Baseline.load(options.baseline or BASELINE, must_exist=bool(options.baseline)
                             and not options.update_baseline)
    scenes = scenes_of(options, baseline)
    chosen = chosen_cases(options, scenes)
    if options.list:
        print("\n".join(chosen))
        return ExitCode.PASS
    out = options.out or project.TREE / "build/regress" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    if out.exists() and any(out.iterdir()):
        raise UserError(ExitCode.USAGE, f"--out {out}: not empty.")
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def say(text: str) -> None:
        elapsed = int(time.monotonic() - started)
        print(f"[{elapsed // 60:3d}:{elapsed % 60:02d}] {text}", file=sys.stderr, flush=True)

    report = ktap.Writer(sys.stdout, len(chosen))

    def sink(outcome: Outcome) -> None:
        report.result(outcome)
        say(f"{outcome.verdict.value:4} {outcome.case}")

    record = Record(chosen, sink)
    limit = options.timeout or (_DEBUG_LIMIT if options.debug else _LIMIT)
    try:
        play(scenes, Lab(out.resolve(), limit, options.viommu or list(VIOMMUS), options.offline, say), record)
    except UserError as error:
        report.bail_out(str(error))
        raise
    finally:
        # What was decided before an interruption counts.
        if options.junit:
            junit.write(options.junit, record.outcomes)
        if options.update_baseline:
            baseline.save()
    say(f"{sum(o.verdict is Verdict.PASS for o in record.outcomes)} passed, "
        f"{sum(o.verdict is Verdict.FAIL for o in record.outcomes)} failed, "
        f"{sum(o.verdict is Verdict.SKIP for o in record.outcomes)} skipped; logs in {out}")
    return ExitCode.GUEST_FAILED if record.failed else ExitCode.PASS


if __name__ == "__main__":
    common.run(lambda: main(sys.argv[1:]), "regress")
