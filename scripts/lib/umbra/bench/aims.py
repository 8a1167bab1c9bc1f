# SPDX-License-Identifier: GPL-2.0-or-later
"""What the project aims at, and how far a run's figures are from it."""

import dataclasses
from collections.abc import Iterator

from umbra.bench import device, emulated, testbed
from umbra.bench.figures import ratio, significant, times

# Case -> the least ratio to the peer, by number of mapped pages.
RATIOS = {
    ("dsi-unchanged", 65536): 200.0,
    ("dsi-unchanged", 1048576): 100.0,
    ("unmap-256-dsi", 65536): 100.0,
    ("map-512-psi", 65536): 20.0,
    ("unmap-512-psi", 65536): 20.0,
    ("map-1-psi", 65536): 2.0,
}
# Number of mapped pages -> the most memcmps of the mapped leaf tables that an idle domain flush may take.
MEMCMPS = {65536: 2.0, 1048576: 1.5}
DEVICES, DEVICES_FACTOR = 16, 1.2
DRAIN_FACTOR = 4.0
MIRROR_FACTOR, MIRROR_SPARE = 1.05, 1 << 20


@dataclasses.dataclass(frozen=True)
class Verdict:
    what: str
    aim: str
    measured: str
    met: bool


def verdicts(device_rows: list[device.Row], testbed_rows: list[testbed.Row],
             emulated_rows: list[emulated.Row]) -> list[Verdict]:
    """Of the aims that these rows say something about."""
    return [*_ratios(device_rows), *_memcmps(device_rows), *_devices(device_rows), *_drains(testbed_rows),
            *_mirror(device_rows), *_emulated(emulated_rows)]


def _name(row: device.Row) -> str:
    return f"{row.case}, {row.pages:,} pages, {row.layout}"


def _ratios(rows: list[device.Row]) -> Iterator[Verdict]:
    for row in rows:
        aim = RATIOS.get((row.case, row.pages))
        if aim is not None and row.devices == 1:
            measured = row.ratio.median
            yield Verdict(_name(row), f"≥ {times(aim)}", times(measured), measured >= aim)


def _memcmps(rows: list[device.Row]) -> Iterator[Verdict]:
    for row in rows:
        aim = MEMCMPS.get(row.pages)
        if row.case == "dsi-unchanged" and row.devices == 1 and aim is not None and row.by_memcmp:
            factor = row.by_memcmp.median
            yield Verdict(f"{_name(row)}, in memcmps of the leaf tables", f"≤ {significant(aim)}",
                          significant(factor), factor <= aim)


def _devices(rows: list[device.Row]) -> Iterator[Verdict]:
    for row in rows:
        if row.case == "dsi-unchanged" and row.devices == DEVICES and row.by_one_device:
            factor = row.by_one_device.median
            yield Verdict(f"{_name(row)}, {DEVICES} devices in one domain, in costs of one device",
                          f"≤ {significant(DEVICES_FACTOR)}", significant(factor), factor <= DEVICES_FACTOR)


def _drains(rows: list[testbed.Row]) -> Iterator[Verdict]:
    for row in rows:
        # An own count of 0 has no ratio: then nothing was unmapped, and nothing was shown.
        if row.workload.startswith("drain-") and row.policy == "fq-domain" and row.drain_ratio is not None:
            yield Verdict(f"{row.workload}, {row.backend}: the peer's VFIO unmaps for each of Umbra's",
                          f"≥ {times(DRAIN_FACTOR)}", times(row.drain_ratio), row.drain_ratio >= DRAIN_FACTOR)


def _mirror(rows: list[device.Row]) -> Iterator[Verdict]:
    seen = set()
    for row in rows:
        if row.devices == 1 and row.mirror_bytes and (row.pages, row.layout) not in seen:
            seen.add((row.pages, row.layout))
            room = row.table_bytes * MIRROR_FACTOR + MIRROR_SPARE
            yield Verdict(f"mirror memory, {row.pages:,} pages, {row.layout}",
                          f"≤ {significant(room / 1024)} KiB", f"{significant(row.mirror_bytes / 1024)} KiB",
                          row.mirror_bytes <= room)


def _emulated(rows: list[emulated.Row]) -> Iterator[Verdict]:
    """No worse than the peer, as far as the spread lets one tell: in three turns of four it would have to be worse."""
    for row in rows:
        yield Verdict(f"{row.workload}: reads a second beside the peer's", "≥ 1.00× within the spread",
                      ratio(row.iops_ratio), row.iops_ratio.high >= 1)


HEADER = ["what", "aim", "measured", "met"]


def table_rows(found: list[Verdict]) -> list[list[str]]:
    return [[verdict.what, verdict.aim, verdict.measured, "yes" if verdict.met else "no"] for verdict in found]
