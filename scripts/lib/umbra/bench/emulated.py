# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated level: 4 KiB random reads of an NVMe that QEMU emulates behind each vIOMMU, without VFIO.

One guest behind each vIOMMU, up at the same time, and they take turns: what the machine does meanwhile weighs on both,
and a ratio is that of neighbours in time. Beside the reads a second there is the CPU time that QEMU took for each: it
depends less on how the machine schedules.
"""

import contextlib
import dataclasses
import fnmatch
from pathlib import Path

from umbra.bench.figures import Spread, ratio, significant, with_spread
from umbra.building import products
from umbra.errors import ExitCode, UserError
from umbra.measuring import session
from umbra.table import quantity
from umbra.vm.config import GuestConfig
from umbra.vm.guest import Guest, fresh_directory
from umbra.vm.host import LocalHost
from umbra.vm.testbed import Testbed

PEER, OWN = "qemu-intel", "umbra"
DEPTHS = (1, 16)
_TURNS = 12
_SECONDS = 2
_POLICY = "strict"  # each read is a map and an unmap that the vIOMMU is told of
_LIMIT = 120.0  # seconds for a guest's boot and end; the turns come on top


def name_of(depth: int) -> str:
    return f"emulated-randread-4k-qd{depth}"


WORKLOADS = tuple(name_of(depth) for depth in DEPTHS)


def run(patterns: list[str], repeat: int, out: Path, build: products.BuildOptions) -> dict:
    """What each turn of each guest came to."""
    depths = [depth for depth in DEPTHS if not patterns or any(fnmatch.fnmatch(name_of(depth), p) for p in patterns)]
    testbed, plugin = Testbed.ensure(build), products.ensure_plugin(build)
    turns = _TURNS * repeat
    limit = _LIMIT + turns * len(depths) * 2 * _SECONDS * 5
    runs = []
    with contextlib.ExitStack() as stack:
        guests = {viommu: stack.enter_context(_guest(viommu, out / "emulated" / viommu, testbed, plugin, limit))
                  for viommu in (PEER, OWN)}
        for guest in guests.values():
            guest.wait_ready()
            _ask(guest, f"policy {_POLICY} fresh=yes")
        for turn in range(turns):
            for depth in depths:
                # Each goes first every other time.
                for viommu in (PEER, OWN) if turn % 2 == 0 else (OWN, PEER):
                    runs.append({"viommu": viommu, "depth": depth, "turn": turn} | _read(guests[viommu], depth))
        for guest in guests.values():
            guest.power_off()
    return {"policy": _POLICY, "seconds": _SECONDS, "runs": runs}


def _guest(viommu: str, rundir: Path, testbed: Testbed, plugin: Path, limit: float) -> Guest:
    fresh_directory(rundir)
    config = GuestConfig(viommu=viommu, cpus=1, kernel=testbed.kernel.bzimage,
                         initrd=testbed.images.guest_initrd_for(testbed.kernel, rundir),
                         plugin=plugin if viommu == OWN else None)
    return Guest(session.emulated_host(testbed, config, rundir), config, limit)


def _read(guest: Guest, depth: int) -> dict:
    host = guest.host
    assert isinstance(host, LocalHost)
    before = host.guest_cpu_seconds()
    data = _ask(guest, f"workload fio rw=randread bs=4k iodepth={depth} seconds={_SECONDS}")
    reads = data["read"]
    # The device is bound and fio starts within that time, for both alike.
    return {"iops": reads["iops"], "cpu_seconds_per_read": (host.guest_cpu_seconds() - before) / reads["ios"]}


def _ask(guest: Guest, line: str) -> dict:
    result = guest.command(line)
    if not result.ok:
        raise UserError(ExitCode.GUEST_FAILED, f"'{line}' behind {guest.config.viommu} failed: {result.error}")
    return result.data


@dataclasses.dataclass(frozen=True)
class Row:
    workload: str
    peer_iops: Spread
    own_iops: Spread
    iops_ratio: Spread  # Umbra's by the peer's, turn by turn
    peer_cpu: Spread    # seconds a read
    own_cpu: Spread
    cpu_ratio: Spread   # the peer's by Umbra's, turn by turn


def rows(result: dict) -> list[Row]:
    found = []
    for depth in dict.fromkeys(entry["depth"] for entry in result["runs"]):
        sides = {viommu: {entry["turn"]: entry for entry in result["runs"]
                          if entry["depth"] == depth and entry["viommu"] == viommu} for viommu in (PEER, OWN)}
        turns = sorted(sides[PEER].keys() & sides[OWN].keys())
        if not turns:
            continue
        peer, own = ([sides[viommu][turn] for turn in turns] for viommu in (PEER, OWN))
        cpu = "cpu_seconds_per_read"
        found.append(Row(name_of(depth), Spread.of([entry["iops"] for entry in peer]),
                         Spread.of([entry["iops"] for entry in own]),
                         Spread.of([b["iops"] / a["iops"] for a, b in zip(peer, own, strict=True)]),
                         Spread.of([entry[cpu] for entry in peer]), Spread.of([entry[cpu] for entry in own]),
                         Spread.of([a[cpu] / b[cpu] for a, b in zip(peer, own, strict=True)])))
    return found


HEADER = ["workload", "QEMU IOPS", "Umbra IOPS", "ratio", "QEMU CPU µs / read", "Umbra CPU µs / read", "ratio"]


def table_rows(measured: list[Row]) -> list[list[str]]:
    def iops(spread: Spread) -> str:
        return with_spread(quantity(spread.median), spread)

    def cpu(spread: Spread) -> str:
        return with_spread(significant(spread.median * 1e6), spread)

    return [[row.workload, iops(row.peer_iops), iops(row.own_iops), ratio(row.iops_ratio), cpu(row.peer_cpu),
             cpu(row.own_cpu), ratio(row.cpu_ratio)] for row in measured]
