# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be measured, and what of it is: cells and workloads."""

import dataclasses
import fnmatch
from pathlib import Path

from umbra.building import products
from umbra.errors import ExitCode, UserError
from umbra.vm.agent_commands import POLICIES

VIOMMUS = ("umbra", "qemu-intel", "qemu-virtio")
# Behind `emulated` there is no VFIO: QEMU emulates the NVMe and translates each access of it.
BACKENDS = ("type1", "iommufd", "emulated")
DEFAULT_BACKENDS = ("type1", "iommufd")
# Policies that an unpatched kernel can be told to use.
STOCK_POLICIES = ("strict", "fq-domain")


@dataclasses.dataclass
class MeasureOptions:
    """What to measure, and how often. An empty list: the usual ones. `workload`: patterns of names. `smp`: CPUs of a
    guest. `out`: the folder of the result (default: time-stamped, below build/measure)."""
    quick: bool = False
    viommu: list[str] = dataclasses.field(default_factory=list)
    policy: list[str] = dataclasses.field(default_factory=list)
    backend: list[str] = dataclasses.field(default_factory=list)
    kernel: list[str] = dataclasses.field(default_factory=list)
    workload: list[str] = dataclasses.field(default_factory=list)
    smp: int = 1
    repeat: int = 1
    out: Path | None = None
    offline: bool = False
    update: bool = False


@dataclasses.dataclass(frozen=True)
class Workload:
    """`command` is one of the agent's (tests/guest/README.md). It runs a timed and a counted round; if not `timed`, the
    counted one alone."""
    name: str
    command: str
    pages_mapped: int | None = None
    quick: bool = False
    default: bool = True
    timed: bool = True

    @property
    def rounds(self) -> int:
        return 2 if self.timed else 1


def _hold(pages: int, quick: bool = False) -> Workload:
    # Reversed: each held page is a mapping of its own in the host, and 65,536 are mapped in seconds.
    command = f"workload hold pages_mapped={pages} layout=reversed batch=64 operations=2048"
    return Workload(f"hold-{pages}", command, pages, quick)


def _dma_map(pages: int, threads: int) -> Workload:
    return Workload(f"dma-map-{pages}p-{threads}t", f"workload dma-map pages={pages} threads={threads} seconds=1")


def _fio(name: str, rw: str, size: str, depth: int, default: bool = True) -> Workload:
    return Workload(f"nvme-{name}", f"workload fio rw={rw} bs={size} iodepth={depth} seconds=2", default=default)


def workloads(cpus: int) -> list[Workload]:
    """All there are; those that are not `default` run only when they are asked for by name."""
    return [
        _hold(256), _hold(4096, quick=True), _hold(65536),
        *(_dma_map(pages, threads) for pages in (1, 16) for threads in sorted({1, cpus})),
        _fio("mixed-4k-qd1", "randrw", "4k", 1), _fio("mixed-4k-qd16", "randrw", "4k", 16),
        _fio("mixed-128k", "rw", "128k", 4),
        Workload("nvme-verify", "workload verify size=4m", timed=False),
        *(_fio(f"rand{side}-4k-qd{depth}", f"rand{side}", "4k", depth, default=False)
          for side in ("read", "write") for depth in (1, 16)),
        *(_fio(f"{side}-128k", side, "128k", 4, default=False) for side in ("read", "write")),
    ]


@dataclasses.dataclass(frozen=True)
class Cell:
    viommu: str
    policy: str
    backend: str
    kernel: str

    @property
    def guest(self) -> tuple[str, str, str]:
        """Cells that are alike in this share a boot."""
        return self.viommu, self.backend, self.kernel

    def __str__(self) -> str:
        return f"{self.viommu} {self.policy} {self.backend} {self.kernel}"


def chosen_workloads(options: MeasureOptions) -> list[Workload]:
    every = workloads(options.smp)
    if options.workload:
        chosen = [w for w in every if any(fnmatch.fnmatch(w.name, g) for g in options.workload)]
        if not chosen:
            raise UserError(ExitCode.USAGE, f"No workload matches {' '.join(options.workload)}.",
                            "measure --list names them.")
        return chosen
    return [w for w in every if (w.quick if options.quick else w.default)]


def chosen_cells(options: MeasureOptions) -> list[Cell]:
    """Each cell once, however often its parts were named."""
    umbra_is_here = products.plugin_sources_present()
    viommus = options.viommu or (["umbra", "qemu-intel"] if umbra_is_here else ["qemu-intel"])
    backends = options.backend or (["type1"] if options.quick or not umbra_is_here
                                   else DEFAULT_BACKENDS)
    cells = []
    for kernel in options.kernel or ["stock"]:
        for policy in options.policy or (POLICIES if kernel == "patched" else STOCK_POLICIES):
            if kernel == "stock" and policy not in STOCK_POLICIES:
                raise UserError(ExitCode.USAGE, f"--policy {policy} needs --kernel patched.")
            # The vIOMMUs side by side: neighbours in time share the machine's mood.
            cells += [Cell(viommu, policy, backend, kernel)
                      for backend in backends for viommu in viommus]
    return list(dict.fromkeys(cells))
