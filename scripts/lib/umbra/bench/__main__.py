# SPDX-License-Identifier: GPL-2.0-or-later
"""bench: what invalidations cost beside QEMU's intel-iommu, level by level (see --help).

One run is one report folder: result.json, the tables as text and Markdown, the plots, and the logs.
"""

import argparse
import fnmatch
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from umbra import command, measure, progress, project
from umbra.bench import device, emulated, engine, plots, publish, report, testbed
from umbra.building import packages, plugin, products
from umbra.building.plugin import PluginOptions
from umbra.cache import write_atomically
from umbra.errors import ExitCode, UserError

SCHEMA = 1
LEVELS = ("device", "engine", "testbed", "emulated")
QUICK_LEVELS = ("device", "engine")

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


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = command.Parser(prog="bench", epilog=EPILOG, description=(
        "Builds what is missing, then measures what invalidations cost on Umbra and on QEMU's intel-iommu in one run. "
        "Writes one folder with result.json, tables and plots."))
    parser.add_argument("--quick", action="store_true",
                        help="device and engine level only, few sizes, few repetitions: 1 to 2 minutes")
    parser.add_argument("--level", action="append", choices=LEVELS, help="repeatable (default: all of them)")
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
    command.add_common_options(parser)
    options = parser.parse_args(arguments)
    if not 1 <= options.repeat <= 100:
        raise UserError(ExitCode.USAGE, f"--repeat {options.repeat}: 1 to 100.")
    if options.out and options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise UserError(ExitCode.USAGE, f"--out {options.out}: not an empty folder.", "Name a new one.")
    return options


def chosen_levels(options: argparse.Namespace) -> list[str]:
    wanted = options.level or (QUICK_LEVELS if options.quick else LEVELS)
    return [level for level in LEVELS if level in wanted]


def names() -> dict[str, Sequence[str]]:
    """What there is to measure, by level."""
    return {"device": device.CASES, "engine": engine.BENCHMARKS,
            "testbed": [work.name for work in testbed.workloads()], "emulated": emulated.WORKLOADS}


def levels_with_work(options: argparse.Namespace) -> list[str]:
    """Those of the chosen levels at which something has a name of --only. A name that nothing has is refused."""
    levels, known = chosen_levels(options), names()
    if not options.only:
        return levels
    found = set()
    for pattern in options.only:
        at = {level for level in levels if any(_fits(name, pattern) for name in known[level])}
        if not at:
            raise UserError(ExitCode.USAGE, f"--only {pattern}: no level of {', '.join(levels)} has such a name; "
                            "bench --list tells the names.")
        found |= at
    return [level for level in levels if level in found]


def _fits(name: str, pattern: str) -> bool:
    """Whether a pattern is for a name, whole or without arguments at its end, as umbra.bench.engine asks for it."""
    words = name.split("/")
    return any(fnmatch.fnmatchcase("/".join(words[:count]), pattern) for count in range(1, len(words) + 1))


class Bench:
    """The programs, built once, and the levels that run on them."""

    def __init__(self, options: argparse.Namespace, levels: Sequence[str]):
        self._options = options
        self._levels = levels
        self.failures: list[str] = []

    def build(self) -> None:
        options = self._options
        packages.ensure(packages.BENCH, options.offline)
        build = products.BuildOptions(offline=options.offline, update=options.update)
        self._qemu = products.ensure_qemu(build)
        plugin.ensure(PluginOptions(offline=options.offline, update=options.update),
                      ("umbra", device.TARGET, *engine.TARGETS))

    def run(self, out: Path) -> dict:
        """Runs the levels one after the other; what fails is in `failures`, and the rest goes on."""
        started, clock = time.strftime("%Y-%m-%d %H:%M"), time.monotonic()
        result = {"schema": SCHEMA, "machine": measure.machine(),
                  "versions": {"qemu": self._qemu.version, "umbra": project.version()},
                  "conditions": {"started": started, "arguments": sys.argv[1:], "load_before": os.getloadavg()[0]},
                  "levels": {}}
        for level in self._levels:
            try:
                result["levels"][level] = getattr(self, f"_{level}")(out)
            except UserError as error:
                self.failures.append(f"{level}: {error}")
            result["conditions"] |= {"load_after": os.getloadavg()[0], "minutes": (time.monotonic() - clock) / 60}
            _save(result, out)  # as far as it is: a later level may not come to its end
        return result

    def _device(self, out: Path) -> dict:
        words = device.arguments(self._options.quick, self._options.only, self._options.repeat)
        return device.run(plugin.BUILD, self._qemu.binary, out, words)

    def _engine(self, out: Path) -> dict:
        words = engine.arguments(self._options.quick, self._options.only, self._options.repeat)
        return engine.run(plugin.BUILD, out, words)

    def _testbed(self, out: Path) -> dict:
        options = self._options
        result, failures = testbed.run(options.quick, options.only, options.repeat, out, options)
        self.failures += failures
        return result

    def _emulated(self, out: Path) -> dict:
        options = self._options
        build = products.BuildOptions(offline=options.offline, update=options.update)
        return emulated.run(options.only, options.repeat, out, build)


def _save(result: dict, out: Path) -> None:
    write_atomically(out / "result.json", json.dumps(result, indent=1) + "\n")


def write_report(result: dict, out: Path) -> list[tuple[str, str]]:
    """All files of the report folder but the logs; returns the plots."""
    _save(result, out)
    drawn = plots.draw(result, out)
    write_atomically(out / "report.txt", report.render(result, markdown=False, colour=False) + "\n")
    write_atomically(out / "report.md", publish.generated(result, drawn).replace("](plots/", "](") + "\n")
    return drawn


def load(path: Path) -> dict:
    try:
        result = json.loads(path.read_text())
    except OSError as error:
        raise UserError(ExitCode.USAGE, f"--report {path}: {error.strerror}.") from None
    except ValueError as error:
        raise UserError(ExitCode.USAGE, f"--report {path} is no JSON: {error}.") from None
    if not isinstance(result, dict) or result.get("schema") != SCHEMA or "levels" not in result:
        raise UserError(ExitCode.USAGE, f"--report {path}: not a result of scripts/bench, schema {SCHEMA}.")
    return result


def new_folder(options: argparse.Namespace) -> Path:
    folder = (options.out or project.TREE / "build/bench" / time.strftime("%Y%m%d-%H%M%S")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def again(options: argparse.Namespace) -> int:
    """The report of an earlier run."""
    result = load(options.report)
    if options.out or options.publish:
        packages.ensure(packages.BENCH, options.offline)
        finish(result, new_folder(options), options, [])
    show(result, options)
    return ExitCode.PASS


def finish(result: dict, out: Path, options: argparse.Namespace, failures: list[str]) -> None:
    drawn = write_report(result, out)
    if options.publish and not failures:
        progress.say(f"published: {publish.publish(result, out, drawn)}")


def show(result: dict, options: argparse.Namespace) -> None:
    print(json.dumps(result) if options.json else report.render(result, options.markdown), flush=True)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.report:
        return again(options)
    if options.list:
        for level, known in names().items():
            for name in known:
                print(f"{level:8} {name}")
        return ExitCode.PASS
    bench = Bench(options, levels_with_work(options))
    bench.build()
    out = new_folder(options)
    result = bench.run(out)
    finish(result, out, options, bench.failures)
    show(result, options)
    progress.say(f"report: {out}")
    for failure in bench.failures:
        progress.say(f"failed: {failure}")
    return ExitCode.GUEST_FAILED if bench.failures else ExitCode.PASS


if __name__ == "__main__":
    command.run(lambda: main(sys.argv[1:]), "bench")
