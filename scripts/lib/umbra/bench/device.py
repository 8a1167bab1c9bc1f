# SPDX-License-Identifier: GPL-2.0-or-later
"""The device level: a QEMU without a guest, driven by umbra_device_bench (tests/bench/device)."""

import dataclasses
import json
from pathlib import Path

from umbra import progress
from umbra.bench.figures import Spread, duration, ratio, timed, times
from umbra.building import plugin
from umbra.building.environment import environment
from umbra.errors import ExitCode, UserError
from umbra.table import quantity

FORMAT = "umbra-device-bench-2"
TARGET = "umbra_device_bench"
_BINARY = Path("tests/bench/device") / TARGET
PEER, OWN = "intel-iommu", "umbra-viommu"
TURNS, QUICK_TURNS = 31, 15
BUDGET_SECONDS, QUICK_BUDGET_SECONDS = 4, 2
# Those of tests/bench/device/cases.cc, in its order: --only and --list need them before the program is built.
# tests/scripts/test_bench.py compares.
CASES = (
    "dsi-unchanged", "gi-unchanged", "unmap-256-dsi", "map-all-dsi", "unmap-all-dsi", "map-1-psi", "map-1-psi-adjacent",
    "unmap-1-psi", "map-1-psi-alone", "unmap-1-psi-alone", "map-8-psi", "unmap-8-psi", "map-512-psi", "unmap-512-psi",
    "map-2m-psi", "unmap-2m-psi", "map-1g-psi", "unmap-1g-psi")


@dataclasses.dataclass(frozen=True)
class Row:
    """One case on one machine: times of both vIOMMUs in ns, and what surrounds them."""
    case: str
    pages: int
    devices: int
    sharing: str
    layout: str
    peer: Spread
    own: Spread
    ratio: Spread
    memcmp: Spread | None
    by_memcmp: Spread | None  # Umbra's time in memcmps of the mapped leaf tables
    by_one_device: Spread | None  # Umbra's time for several devices in one domain, in times for one
    peer_calls: float
    own_calls: float
    peer_floor: float
    own_floor: float
    table_bytes: int
    mirror_bytes: int
    peer_bytes: int
    own_bytes: int

    @property
    def limit(self) -> float:
        """ns that a sync by comparison cannot go below: the floor, and for a whole domain a look at every entry."""
        return self.own_floor + (self.memcmp.median if self.memcmp else 0.0)


def rows(result: dict) -> list[Row]:
    """Of the JSON that umbra_device_bench writes. Raises KeyError if it is another thing."""
    if result["format"] != FORMAT:
        raise KeyError(result["format"])
    found = []
    for entry in result["results"]:
        peer, own = entry[PEER], entry[OWN]
        found.append(Row(
            entry["case"], entry["pages"], entry["devices"], entry["sharing"], entry["layout"],
            Spread.of_summary(peer["time_ns"]), Spread.of_summary(own["time_ns"]), Spread.of_summary(entry["ratio"]),
            _optional(entry, "memcmp_ns"), _optional(entry, "umbra_by_memcmp"), _optional(entry, "umbra_by_one_device"),
            peer["calls"], own["calls"], peer["floor_ns"], own["floor_ns"], own["table_bytes"], own["mirror_bytes"],
            peer["anonymous_bytes"], own["anonymous_bytes"]))
    return found


def _optional(entry: dict, name: str) -> Spread | None:
    return Spread.of_summary(entry[name]) if name in entry else None


def arguments(quick: bool, cases: list[str], repeat: int) -> list[str]:
    """The binary's options. `repeat`: that many times as many turns."""
    words = ["--turns", str((QUICK_TURNS if quick else TURNS) * repeat),
             "--budget", str((QUICK_BUDGET_SECONDS if quick else BUDGET_SECONDS) * repeat)]
    if quick:
        words += ["--pages", "4096,65536", "--devices", "1"]
    if cases:
        words += ["--case", ",".join(cases)]
    return words


def run(build: Path, qemu: Path, out: Path, words: list[str]) -> dict:
    """Measures, and returns what the binary wrote; its table is in `out`/device.log."""
    report = out / "device.json"
    built_plugin = plugin.find(build)
    if built_plugin is None:
        raise UserError(ExitCode.ENVIRONMENT, f"{build} holds no umbra.so.", "Run scripts/build-plugin.")
    places = environment(UMBRA_QEMU_BIN=str(qemu), UMBRA_PLUGIN=str(built_plugin))
    try:
        progress.run("Measuring at device level", [build / _BINARY, "--json", report, *words], out / "device.log",
                     env=places)
    except progress.StepFailed as error:
        raise UserError(ExitCode.GUEST_FAILED, str(error)) from None
    return json.loads(report.read_text())


HEADER = ["case", "targets", "domains", "pages", "devices", "QEMU", "Umbra", "ratio", "memcmp", "Umbra / memcmp",
          "QEMU calls", "Umbra calls", "QEMU floor", "Umbra floor"]
TEXT_COLUMNS = 3


def table_rows(measured: list[Row]) -> list[list[str]]:
    lines = []
    for row in sorted(measured, key=lambda r: _order(measured, r)):
        lines.append([row.case, row.layout, row.sharing if row.devices > 1 else "-", quantity(row.pages),
                      str(row.devices), timed(row.peer), timed(row.own), ratio(row.ratio), timed(row.memcmp),
                      ratio(row.by_memcmp), _calls(row.peer_calls), _calls(row.own_calls), duration(row.peer_floor),
                      duration(row.own_floor)])
    return lines


def _order(measured: list[Row], row: Row) -> tuple:
    """By case as they were measured first, then by size."""
    cases = list(dict.fromkeys(other.case for other in measured))
    return cases.index(row.case), row.devices, row.sharing, row.pages, row.layout


def _calls(calls: float) -> str:
    return quantity(calls, 0 if calls == int(calls) or calls >= 100 else 2)


LIMIT_PAGES = (65536, 1048576)
LIMIT_HEADER = ["case", "targets", "pages", "QEMU", "Umbra", "ratio", "limit", "Umbra / limit"]
LIMIT_TEXT_COLUMNS = 2


def limit_rows(measured: list[Row]) -> list[list[str]]:
    """How far one device's cases are from their limit."""
    chosen = [row for row in measured if row.devices == 1 and row.pages in LIMIT_PAGES]
    return [[row.case, row.layout, quantity(row.pages), timed(row.peer), timed(row.own), ratio(row.ratio),
             duration(row.limit), times(row.own.median / row.limit) if row.limit else "-"]
            for row in sorted(chosen, key=lambda r: (r.pages, _order(measured, r)))]


MEMORY_HEADER = ["pages", "targets", "guest tables", "mirror", "mirror / tables", "Umbra B/page", "QEMU B/page"]


def memory_rows(measured: list[Row]) -> list[list[str]]:
    """What each takes for one device, by number of pages. B/page: all private memory that QEMU grew by."""
    lines = {}
    for row in measured:
        if row.devices == 1 and row.table_bytes and row.mirror_bytes:
            lines[row.pages, row.layout] = [
                quantity(row.pages), row.layout, _kib(row.table_bytes), _kib(row.mirror_bytes),
                f"{row.mirror_bytes / row.table_bytes:.3f}", quantity(row.own_bytes / row.pages, 1),
                quantity(row.peer_bytes / row.pages, 1)]
    return [lines[key] for key in sorted(lines)]


def _kib(count: int) -> str:
    return f"{quantity(count / 1024)} KiB"
