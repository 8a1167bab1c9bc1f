# SPDX-License-Identifier: GPL-2.0-or-later
"""What invalidations cost beside QEMU's intel-iommu, level by level.

One run is one report folder: result.json, the tables as text and Markdown, the plots, and the logs.
"""

import dataclasses
import fnmatch
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from umbra import documents, project
from umbra.bench import device, emulated, engine, plots, publish, report, testbed
from umbra.building import packages, plugin, products
from umbra.building.plugin import PluginOptions
from umbra.cache import write_atomically
from umbra.errors import ExitCode, UserError
from umbra.measuring import results

KIND = "result of scripts/bench"
SCHEMA = 1
LEVELS = ("device", "engine", "testbed", "emulated")
QUICK_LEVELS = ("device", "engine")


@dataclasses.dataclass
class BenchOptions:
    """What to measure, and how often. An empty list: all of it. `level`: some of LEVELS. `only`: patterns of names.
    `repeat`: N times as many repetitions. `out`: the report's folder (default: time-stamped, below build/bench)."""
    quick: bool = False
    level: list[str] = dataclasses.field(default_factory=list)
    only: list[str] = dataclasses.field(default_factory=list)
    repeat: int = 1
    out: Path | None = None
    offline: bool = False
    update: bool = False


def chosen_levels(options: BenchOptions) -> list[str]:
    wanted = options.level or (QUICK_LEVELS if options.quick else LEVELS)
    return [level for level in LEVELS if level in wanted]


def names() -> dict[str, Sequence[str]]:
    """What there is to measure, by level."""
    return {"device": device.CASES, "engine": engine.BENCHMARKS,
            "testbed": [work.name for work in testbed.workloads()], "emulated": emulated.WORKLOADS}


def levels_with_work(options: BenchOptions) -> list[str]:
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

    def __init__(self, options: BenchOptions, levels: Sequence[str]):
        self._options = options
        self._levels = levels
        self.failures: list[str] = []

    def build(self) -> None:
        options = self._options
        packages.ensure(packages.BENCH, options.offline)
        self._qemu = products.ensure_qemu(self._build_options())
        plugin.ensure(PluginOptions(offline=options.offline, update=options.update),
                      ("umbra", device.TARGET, *engine.TARGETS))

    def run(self, out: Path) -> dict:
        """Runs the levels one after the other; what fails is in `failures`, and the rest goes on."""
        started, clock = time.strftime("%Y-%m-%d %H:%M"), time.monotonic()
        levels: dict[str, dict] = {}
        conditions = {"started": started, "arguments": sys.argv[1:], "load_before": os.getloadavg()[0]}
        result = {**documents.head(KIND, SCHEMA), "machine": results.machine(),
                  "versions": {"qemu": self._qemu.version, "umbra": project.version()},
                  "conditions": conditions, "levels": levels}
        for level in self._levels:
            try:
                levels[level] = getattr(self, f"_{level}")(out)
            except UserError as error:
                self.failures.append(f"{level}: {error}")
            conditions |= {"load_after": os.getloadavg()[0], "minutes": (time.monotonic() - clock) / 60}
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
        result, failures = testbed.run(options.quick, options.only, options.repeat, out, self._build_options())
        self.failures += failures
        return result

    def _emulated(self, out: Path) -> dict:
        return emulated.run(self._options.only, self._options.repeat, out, self._build_options())

    def _build_options(self) -> products.BuildOptions:
        return products.BuildOptions(offline=self._options.offline, update=self._options.update)


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
    """The result of an earlier run. Raises UserError for any other file."""
    result = documents.load(path, "--report", KIND, SCHEMA, {"levels": dict})
    try:
        report.render(result, markdown=True)
    except (KeyError, TypeError, AttributeError):
        raise documents.damaged(path, "--report") from None
    return result


def new_folder(wanted: Path | None) -> Path:
    folder = (wanted or project.TREE / "build/bench" / time.strftime("%Y%m%d-%H%M%S")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
