# SPDX-License-Identifier: GPL-2.0-or-later
"""The testbed level: a Linux guest with an NVMe by real VFIO, booted and counted by measure."""

import dataclasses
import fnmatch
from collections.abc import Iterable
from pathlib import Path

from umbra.bench.figures import Spread, significant, times
from umbra.building.products import BuildOptions
from umbra.measuring import results
from umbra.measuring.plan import Cell, MeasureOptions, Workload
from umbra.measuring.session import Session
from umbra.table import quantity

PEER, OWN = "qemu-intel", "umbra"
_DRAIN = 256  # entries of a guest's flush queue


def _hold(name: str, layout: str) -> Workload:
    command = f"workload hold pages_mapped=4096 layout={layout} batch={_DRAIN} operations={8 * _DRAIN}"
    return Workload(name, command, 4096)


def workloads() -> list[Workload]:
    return [_hold("drain-256-scattered", "scattered"), _hold("drain-256", "contiguous"),
            Workload("nvme-randread-4k-qd16", "workload fio rw=randread bs=4k iodepth=16 seconds=3")]


def chosen_workloads(patterns: list[str]) -> list[Workload]:
    return [work for work in workloads() if not patterns or any(fnmatch.fnmatch(work.name, p) for p in patterns)]


def cells(quick: bool) -> list[Cell]:
    """The vIOMMUs side by side. Strict on iommufd says nothing that type1 does not."""
    pairs = [("type1", "fq-domain")] if quick else [("type1", "strict"), ("type1", "fq-domain"),
                                                    ("iommufd", "fq-domain")]
    return [Cell(viommu, policy, backend, "stock") for backend, policy in pairs for viommu in (PEER, OWN)]


def run(quick: bool, patterns: list[str], repeat: int, out: Path, build: BuildOptions) -> tuple[dict, list[str]]:
    """The result of measuring these cells and workloads, and what failed."""
    options = MeasureOptions(out=out / "testbed", repeat=repeat, offline=build.offline, update=build.update)
    measuring = Session(options, chosen_workloads(patterns), cells(quick))
    measuring.prepare()
    measuring.run()
    return measuring.result, measuring.failures


@dataclasses.dataclass(frozen=True)
class Side:
    """One vIOMMU's figures of a row; None is what was not or cannot be counted."""
    map_us: float | None
    unmap_us: float | None
    iops: Spread | None
    calls_per_invalidation: float | None
    maps_per_operation: float | None
    unmaps_per_drain: float | None
    flushes_per_operation: float | None


@dataclasses.dataclass(frozen=True)
class Row:
    workload: str
    backend: str
    policy: str
    peer: Side
    own: Side

    @property
    def drain_ratio(self) -> float | None:
        """The peer's unmap calls for each of Umbra's."""
        mine, theirs = self.own.unmaps_per_drain, self.peer.unmaps_per_drain
        return theirs / mine if mine and theirs else None


def rows(result: dict) -> list[Row]:
    groups: dict[tuple[str, str, str], dict[str, list[dict]]] = {}
    for run_ in result["runs"]:
        sides = groups.setdefault((run_["workload"], run_["backend"], run_["policy"]), {})
        sides.setdefault(run_["viommu"], []).append(run_)
    return [Row(workload, backend, policy, _side(sides[PEER]), _side(sides[OWN]))
            for (workload, backend, policy), sides in groups.items() if PEER in sides and OWN in sides]


def _side(runs: list[dict]) -> Side:
    return Side(_median([results.latency(run["guest"], "map", "p50") for run in runs]),
                _median([results.latency(run["guest"], "unmap", "p50") for run in runs]),
                _iops(runs),
                _median([_share(_host_calls(run), _invalidations(run)) for run in runs]),
                _median([_share(run["shadow"].get("host_map_calls"), run["counted_operations"]) for run in runs]),
                _median([_share(run["shadow"].get("host_unmap_calls"), run["counted_operations"], _DRAIN)
                         for run in runs]),
                _median([_share(_total(run["host_iommu"].values()), run["counted_operations"]) for run in runs]))


def _iops(runs: list[dict]) -> Spread | None:
    known = [value for run in runs if (value := results.io_total(run["guest"], "iops")) is not None]
    return Spread.of(known) if known else None


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return Spread.of(known).median if known else None


def _total(values: Iterable[int | None]) -> int | None:
    every = list(values)
    known = [value for value in every if value is not None]
    return sum(known) if known and len(known) == len(every) else None


def _share(part: float | None, whole: float | None, scale: int = 1) -> float | None:
    return part * scale / whole if part is not None and whole else None


def _host_calls(run: dict) -> int | None:
    return _total(run["shadow"].get(name) for name in ("host_map_calls", "host_unmap_calls"))


def _invalidations(run: dict) -> int | None:
    return _total(run["invalidations"].get(f"iotlb_{kind}") for kind in ("page", "domain", "global"))


HEADER = ["workload", "backend", "policy", "viommu", "map µs", "unmap µs", "IOPS", "calls / invalidation",
          "maps / operation", "unmaps / 256", "host flushes / operation"]
TEXT_COLUMNS = 4


def table_rows(measured: list[Row]) -> list[list[str]]:
    lines = []
    for row in measured:
        for name, side in ((PEER, row.peer), (OWN, row.own)):
            lines.append([row.workload, row.backend, row.policy, name, _number(side.map_us), _number(side.unmap_us),
                          "-" if side.iops is None else quantity(side.iops.median),
                          _number(side.calls_per_invalidation), _number(side.maps_per_operation),
                          _number(side.unmaps_per_drain), _number(side.flushes_per_operation)])
        lines.append([row.workload, row.backend, row.policy, "ratio", _ratio(row.peer.map_us, row.own.map_us),
                      _ratio(row.peer.unmap_us, row.own.unmap_us),
                      _ratio(_median_of(row.own.iops), _median_of(row.peer.iops)),
                      _ratio(row.peer.calls_per_invalidation, row.own.calls_per_invalidation),
                      _ratio(row.peer.maps_per_operation, row.own.maps_per_operation),
                      _ratio(row.peer.unmaps_per_drain, row.own.unmaps_per_drain),
                      _ratio(row.peer.flushes_per_operation, row.own.flushes_per_operation)])
    return lines


def _median_of(spread: Spread | None) -> float | None:
    return None if spread is None else spread.median


def _number(value: float | None) -> str:
    return "-" if value is None else significant(value)


def _ratio(worse: float | None, better: float | None) -> str:
    return times(worse / better) if worse is not None and better else "-"
