# SPDX-License-Identifier: GPL-2.0-or-later
"""bench: what invalidations cost beside QEMU's intel-iommu, level by level (see --help)."""

import dataclasses
import json
import sys
from pathlib import Path

from umbra import progress
from umbra.bench import publish, report
from umbra.bench.run import LEVELS, Bench, BenchOptions, levels_with_work, load, names, new_folder, write_report
from umbra.building import packages
from umbra.commands import common
from umbra.errors import ExitCode, UserError

EPILOG = """\
device:   a QEMU without a guest, a probe in it that listens as VFIO would; both vIOMMUs take turns
engine:   the comparison and the other parts without QEMU, beside memcmp of the same bytes
testbed:  a Linux guest with an NVMe by real VFIO, type1 and iommufd
emulated: two Linux guests with an NVMe that QEMU emulates, one behind each vIOMMU; they take turns

Example: scripts/bench --quick
         scripts/bench --level device --only 'map-512-*' --only unmap-512-psi
Ratios are the peer's cost by Umbra's: more is better. ± is half the distance of the quartiles.
exit codes: 0 measured, 1 something did not do its work, 2 usage, 4 this machine cannot do it
"""


@dataclasses.dataclass
class CommandLine(BenchOptions):
    report: Path | None = None
    publish: bool = False
    json: bool = False
    markdown: bool = False
    list: bool = False


def parse(arguments: list[str]) -> CommandLine:
    parser = common.Parser(prog="bench", epilog=EPILOG, description=(
        "Builds what is missing, then measures what invalidations cost on Umbra and on QEMU's intel-iommu in one run. "
        "Writes one folder with result.json, tables and plots."))
    parser.add_argument("--quick", action="store_true",
                        help="measure the device and engine levels only, few sizes and repetitions: 1 to 2 minutes")
    parser.add_argument("--level", action="append", default=[], choices=LEVELS,
                        help="a level, as described below (repeatable; default: all)")
    parser.add_argument("--only", action="append", metavar="PATTERN", default=[],
                        help="only cases, benchmarks and workloads whose name matches (repeatable; --list names them)")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="N times as many repetitions")
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="report folder, new or empty (default: time-stamped, below build/bench)")
    parser.add_argument("--report", type=Path, metavar="RESULT.JSON",
                        help="measure nothing: tables (and with --out or --publish, plots) of an earlier run")
    parser.add_argument("--publish", action="store_true",
                        help="also rewrite the generated part of tests/bench/README.md and its plots")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print result.json instead of the tables")
    output.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--list", action="store_true", help="name all cases and stop")
    common.add_common_options(parser)
    options = parser.parse_args(arguments, CommandLine())
    if not 1 <= options.repeat <= 100:
        raise UserError(ExitCode.USAGE, f"--repeat {options.repeat}: 1 to 100.")
    if options.out and options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise UserError(ExitCode.USAGE, f"--out {options.out}: not an empty folder.", "Name a new one.")
    return options


def again(options: CommandLine, earlier: Path) -> int:
    """The report of an earlier run."""
    result = load(earlier)
    if options.out or options.publish:
        packages.ensure(packages.BENCH, options.offline)
        finish(result, new_folder(options.out), options, [])
    show(result, options)
    return ExitCode.PASS


def finish(result: dict, out: Path, options: CommandLine, failures: list[str]) -> None:
    drawn = write_report(result, out)
    if options.publish and not failures:
        progress.say(f"published: {publish.publish(result, out, drawn)}")


def show(result: dict, options: CommandLine) -> None:
    print(json.dumps(result) if options.json else report.render(result, options.markdown), flush=True)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.report:
        return again(options, options.report)
    if options.list:
        for level, known in names().items():
            for name in known:
                print(f"{level:8} {name}")
        return ExitCode.PASS
    bench = Bench(options, levels_with_work(options))
    bench.build()
    out = new_folder(options.out)
    result = bench.run(out)
    finish(result, out, options, bench.failures)
    show(result, options)
    progress.say(f"report: {out}")
    for failure in bench.failures:
        progress.say(f"failed: {failure}")
    return ExitCode.GUEST_FAILED if bench.failures else ExitCode.PASS


if __name__ == "__main__":
    common.run(lambda: main(sys.argv[1:]), "bench")
