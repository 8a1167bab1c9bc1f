# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of a measurement: its figures, its table, its file."""

import os
import platform
import statistics
from pathlib import Path

from umbra import documents, table
from umbra.vm.config import kvm_runs_guests

KIND = "result of scripts/measure"
SCHEMA = 1

HEADER = ["viommu", "policy", "backend", "workload", "map µs", "map p99", "unmap µs", "unmap p99",
          "IOPS", "MB/s", "ops", "PSI", "DSI", "GI", "VFIO map", "VFIO unmap", "host IOTLB"]
TEXT_COLUMNS = 4


def latency(data: dict, side: str, field: str) -> float | None:
    """Microseconds, of a run's `guest`. dma-map reports a mean only."""
    block = data.get(f"{side}_ns") or {}
    value = block.get(field)
    if value is None and field == "p50":
        value = block.get("mean")
    return None if value is None else value / 1000


def io_total(data: dict, field: str) -> float | None:
    sides = [data[side] for side in ("read", "write") if data.get(side)]
    return sum(side[field] for side in sides) if sides else None


def _figures(run: dict) -> list[tuple[float | None, int]]:
    """The table's numbers of one run, each with how many decimals it deserves."""
    guest, sent, shadow, host = (run["guest"], run["invalidations"], run["shadow"],
                                 run["host_iommu"])
    bandwidth = io_total(guest, "bandwidth_bytes_per_second")
    host_total = None if None in host.values() else sum(host.values())
    return [(latency(guest, "map", "p50"), 1), (latency(guest, "map", "p99"), 1),
            (latency(guest, "unmap", "p50"), 1), (latency(guest, "unmap", "p99"), 1),
            (io_total(guest, "iops"), 0), (None if bandwidth is None else bandwidth / 1e6, 1),
            (run["counted_operations"], 0), (sent.get("iotlb_page"), 0),
            (sent.get("iotlb_domain"), 0), (sent.get("iotlb_global"), 0),
            (shadow.get("host_map_calls"), 0), (shadow.get("host_unmap_calls"), 0),
            (host_total, 0)]


def _median(values: list[tuple[float | None, int]]) -> str:
    """Median, and where runs were repeated half the distance from least to most."""
    known = [value for value, _ in values if value is not None]
    if not known:
        return table.quantity(None)
    digits = values[0][1]
    text = table.quantity(statistics.median(known), digits)
    if len(known) > 1:
        text += f" ±{table.quantity((max(known) - min(known)) / 2, digits)}"
    return text


def table_of(result: dict, markdown: bool) -> str:
    groups: dict[tuple, list[dict]] = {}
    for run in result["runs"]:
        policy = run["policy"] + ("" if run["kernel"] == "stock" else f" ({run['kernel']})")
        groups.setdefault((run["workload"], run["backend"], policy, run["viommu"]), []).append(run)
    order = {name: index for index, name in enumerate(
        dict.fromkeys(run["workload"] for run in result["runs"]))}
    rows = []
    for key in sorted(groups, key=lambda k: (order[k[0]], k[1] != "type1", k[2] != "strict", k[2],
                                             k[3] != "umbra")):
        workload, backend, policy, viommu = key
        columns = zip(*(_figures(run) for run in groups[key]), strict=True)
        rows.append([viommu, policy, backend, workload, *(_median(list(c)) for c in columns)])
    return table.render(HEADER, rows, markdown, text_columns=TEXT_COLUMNS)


def load(path: Path) -> dict:
    """The result of an earlier run. Raises UserError for any other file."""
    result = documents.load(path, "--report", KIND, SCHEMA, {"runs": list, "skipped": list})
    try:
        table_of(result, markdown=True)
    except (KeyError, TypeError, AttributeError):
        raise documents.damaged(path, "--report") from None
    return result


def machine() -> dict:
    model = None
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": model, "cpus": os.cpu_count(), "memory_bytes": memory,
            "kernel": platform.release(),
            "testbed_accelerator": "kvm" if kvm_runs_guests() else "tcg"}
