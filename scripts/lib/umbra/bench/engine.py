# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine level: Google Benchmark programs of the unit's and shadow's parts, without QEMU (tests/bench/engine)."""

import dataclasses
import json
import re
from pathlib import Path

from umbra import progress
from umbra.bench.figures import Spread, timed, times
from umbra.building.environment import environment
from umbra.errors import ExitCode, UserError
from umbra.table import quantity

TARGETS = ("umbra_engine_bench", "umbra_shadow_bench")
_FOLDER = Path("tests/bench/engine")
REPETITIONS, QUICK_REPETITIONS = 11, 5
_UNITS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}
SYNC, YARDSTICK = "domain_sync_nothing_changed", "memcmp_of_leaf_tables"
# Quick: nothing that has to build a large domain first.
_QUICK_FILTER = "-pages:(524288|1048576)"
_WHOLE_TABLE = tuple(f"pages:{pages}/fragmented:{fragmented}"
                     for fragmented in (0, 1) for pages in (256, 4096, 65536, 524288, 1048576))
# Those that tests/bench/engine registers, with their arguments: --only and --list need them before the programs are
# built. tests/scripts/test_bench.py compares.
_REGISTERED: dict[str, tuple[str, ...]] = {
    "BM_RemapInterrupt": (),
    "BM_InvalidatePage": ("held:0", "held:2048"),
    "BM_InvalidateRange": ("held:0", "held:2048"),
    "BM_InvalidateOtherDomain": (),
    "BM_InvalidateDomain": (),
    "BM_QueueOfPages": ("pages:1", "pages:128"),
    "BM_TranslateHit": ("pages:1/level:1", "pages:64/level:1", "pages:4096/level:1", "pages:16/level:2",
                        "pages:4/level:3"),
    "BM_TranslateMiss": ("pages:65536/step:1", "pages:65536/step:40503", "pages:1048576/step:1",
                         "pages:1048576/step:648055"),
    "BM_TranslateHitThreads": ("threads:1", "threads:2"),
    "BM_Walk": ("levels:3", "levels:4"),
    "mirror_look_up": ("pages:4096", "pages:65536", "pages:1048576"),
    "plan_256_removals": ("around:0", "around:1", "around:2"),
    YARDSTICK: _WHOLE_TABLE,
    SYNC: _WHOLE_TABLE,
    "scattered_unmaps_and_domain_sync": ("4096", "65536"),
    "page_sync_map_and_unmap": tuple(f"pages:{pages}/fragmented:{fragmented}"
                                     for fragmented in (0, 1) for pages in (1, 8, 512)),
    "page_stores_only": ("1", "8", "512"),
    "compare_one_table": ("plain", "sse2", "avx2", "avx512"),
}
BENCHMARKS = tuple("/".join(filter(None, (family, words)))
                   for family, each in _REGISTERED.items() for words in each or ("",))


@dataclasses.dataclass(frozen=True)
class Row:
    """One benchmark: ns an iteration, of the CPU and so without what others on the machine take, and its counters."""
    name: str
    time: Spread
    counters: dict[str, float]


_STANDARD = {"name", "family_index", "per_family_instance_index", "run_name", "run_type", "repetitions",
             "repetition_index", "threads", "iterations", "real_time", "cpu_time", "time_unit", "aggregate_name",
             "aggregate_unit", "error_occurred", "error_message", "label"}


def rows(result: dict) -> list[Row]:
    """Of Google Benchmark's JSON: the repetitions of each benchmark together. What a CPU cannot do is left out."""
    samples: dict[str, list[dict]] = {}
    for entry in result["benchmarks"]:
        if entry.get("run_type") == "iteration" and not entry.get("error_occurred"):
            samples.setdefault(entry["run_name"], []).append(entry)
    found = []
    for name, entries in samples.items():
        spread = Spread.of([entry["cpu_time"] * _UNITS[entry["time_unit"]] for entry in entries])
        counters = {key: value for key, value in entries[-1].items() if key not in _STANDARD}
        found.append(Row(name, spread, counters))
    return found


def arguments(quick: bool, patterns: list[str], repeat: int) -> list[str]:
    words = [f"--benchmark_repetitions={(QUICK_REPETITIONS if quick else REPETITIONS) * repeat}",
             "--benchmark_enable_random_interleaving=true", f"--benchmark_min_time={0.01 if quick else 0.05}"]
    if patterns:
        words.append(f"--benchmark_filter={'|'.join(_regex(pattern) for pattern in patterns)}")
    elif quick:
        words.append(f"--benchmark_filter={_QUICK_FILTER}")
    return words


def _regex(pattern: str) -> str:
    """A shell pattern as an extended regular expression for names such as `map/pages:8`."""
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return f"^{''.join(parts)}(/|$)"


def _as_registered(entry: dict) -> tuple[int, int]:
    """Repetitions are interleaved at random; a table should not be."""
    return entry["family_index"], entry["per_family_instance_index"]


def run(build: Path, out: Path, words: list[str]) -> dict:
    """Runs both programs; the benchmarks of both in one result."""
    together: dict = {"context": {}, "benchmarks": []}
    for target in TARGETS:
        report = out / f"{target}.json"
        try:
            progress.run(f"Measuring at engine level ({target})",
                         [build / _FOLDER / target, f"--benchmark_out={report}", "--benchmark_out_format=json", *words],
                         out / "engine.log", env=environment())
        except progress.StepFailed as error:
            raise UserError(ExitCode.GUEST_FAILED, str(error)) from None
        text = report.read_text()
        if text.strip():  # no benchmark of this program was asked for, if not
            result = json.loads(text)
            together["context"] = result["context"]
            together["benchmarks"] += sorted(result["benchmarks"], key=_as_registered)
    return together


COMPARE_HEADER = ["targets", "pages", "sync", "memcmp", "sync / memcmp", "mirror / tables", "mirror B/page"]


def compare_rows(measured: list[Row]) -> list[list[str]]:
    """A sync of a domain in which nothing changed, beside a memcmp of the same bytes."""
    by_name = {row.name: row for row in measured}
    lines = []
    for name, row in by_name.items():
        match = re.fullmatch(rf"{SYNC}/pages:(\d+)/fragmented:([01])", name)
        yardstick = by_name.get(name.replace(SYNC, YARDSTICK))
        if match and yardstick:
            lines.append((match[2], int(match[1]), [
                "fragmented" if match[2] == "1" else "contiguous", quantity(int(match[1])), timed(row.time),
                timed(yardstick.time), times(row.time.median / yardstick.time.median),
                f"{row.counters['mirror/tables']:.3f}", quantity(row.counters["bytes/page"], 1)]))
    return [line for _, _, line in sorted(lines)]


HEADER = ["benchmark", "time", "more"]


def table_rows(measured: list[Row]) -> list[list[str]]:
    """Everything else."""
    lines = []
    for row in measured:
        if not row.name.startswith((SYNC + "/", YARDSTICK + "/")):
            more = ", ".join(f"{key} {_counter(key, value)}" for key, value in row.counters.items())
            lines.append([row.name, timed(row.time), more or "-"])
    return lines


def _counter(key: str, value: float) -> str:
    return f"{quantity(value / 2**30, 1)} GiB/s" if key == "bytes_per_second" else quantity(value, 2)
