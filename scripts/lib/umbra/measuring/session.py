# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures what caching mode costs, for each vIOMMU, flush policy, VFIO backend and workload.

A guest is booted for each vIOMMU, backend and kernel, and measured under one policy after the other. Every workload
gets a domain that is new: one that was used before keeps the table pages of what was mapped in it, and a vIOMMU that
reads whole tables pays for them. It runs twice: once timed, with nothing traced, and once counted, with traces on; so
counting does not slow what is timed.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from umbra import documents, project
from umbra.building import products
from umbra.errors import ExitCode, UserError
from umbra.measuring.plan import Cell, MeasureOptions, Workload, chosen_cells, chosen_workloads
from umbra.measuring.results import KIND, SCHEMA, machine
from umbra.vm.config import TESTBED_MEMORY, GuestConfig, kvm_runs_guests
from umbra.vm.counts import Counter, Counts
from umbra.vm.guest import Guest, Phases, fresh_directory
from umbra.vm.host import GuestHost, LocalHost, TestbedHost, TestbedOptions
from umbra.vm.testbed import Testbed

# type1 takes 65,535 mappings a container by default. Measurements raise that in the testbed host, so
# that 65,536 held pages fit; tests/guest lowers it, to see what happens beyond.
ENTRY_LIMIT = 1048576


class Unsupported(Exception):
    """The guest's kernel, or the driver of its vIOMMU, has no such policy."""


class Session:
    """All of one invocation: builds once, then runs cell after cell into `out`/result.json.

    `work` and `cells`: what to run instead of what the options say.
    """

    def __init__(self, options: MeasureOptions, work: list[Workload] | None = None,
                 cells: list[Cell] | None = None):
        self._options = options
        self._workloads = work or chosen_workloads(options)
        self._cells = cells or chosen_cells(options)
        self._started = time.monotonic()
        self.failures: list[str] = []
        self.out: Path = Path()
        self.result: dict = {}

    def say(self, text: str) -> None:
        elapsed = int(time.monotonic() - self._started)
        print(f"[{elapsed // 60:3d}:{elapsed % 60:02d}] {text}", file=sys.stderr, flush=True)

    def prepare(self) -> None:
        build = products.BuildOptions(offline=self._options.offline,
                                      update=self._options.update)
        self._testbed = Testbed.ensure(build)
        self._kernels = {"stock": self._testbed.kernel}
        if any(cell.kernel == "patched" for cell in self._cells):
            self._kernels["patched"] = products.ensure_kernel(build, patched=True)
        self._plugin = None
        if any(cell.viommu == "umbra" for cell in self._cells):
            self._plugin = products.ensure_plugin(build)
        default = project.TREE / "build/measure" / time.strftime("%Y%m%d-%H%M%S")
        self.out = self._options.out or default
        if self.out.exists() and any(self.out.iterdir()):
            raise UserError(ExitCode.USAGE, f"--out {self.out}: not empty.")
        self.out.mkdir(parents=True, exist_ok=True)
        self.out = self.out.resolve()
        self.result = {**documents.head(KIND, SCHEMA), "machine": machine(), "versions": self._versions(),
                       "runs": [], "skipped": []}

    def _versions(self) -> dict:
        versions = {"qemu": self._testbed.qemu.version, "umbra": project.version()}
        for name, kernel in self._kernels.items():
            versions[f"kernel_{name}"] = kernel.version
        return versions

    def run(self) -> None:
        """Boots guest after guest. One that fails is booted anew for the policies that it did not come to."""
        for repetition in range(1, self._options.repeat + 1):
            waiting = list(self._cells)
            while waiting:
                cells = [cell for cell in waiting if cell.guest == waiting[0].guest]
                try:
                    for cell in self._run_guest(cells, repetition):
                        waiting.remove(cell)
                except UserError as error:
                    failed = next(cell for cell in cells if cell in waiting)
                    waiting.remove(failed)
                    self.failures.append(f"{failed}: {error}")
                    self.say(f"FAILED: {error}")
                finally:
                    self._save()

    def _run_guest(self, cells: list[Cell], repetition: int) -> Iterator[Cell]:
        """Boots a guest and measures its cells in it; yields each that is done."""
        first = cells[0]
        kernel = self._kernels[first.kernel]
        rundir = fresh_directory(self.out / "logs" / f"{str(first).replace(' ', '-')}-{repetition}")
        config = GuestConfig(
            viommu=first.viommu, memory=TESTBED_MEMORY, cpus=self._options.smp, iommufd=first.backend == "iommufd",
            kernel=kernel.bzimage, initrd=self._testbed.images.guest_initrd_for(kernel, rundir),
            plugin=self._plugin, extra=["-D", "trace.log"])
        with Guest(self._host_for(first, config, rundir), config, limit=900 * len(cells)) as guest:
            guest.wait_ready()
            counter = Counter(guest)
            for cell in cells:
                self.say(f"{cell}{f', {repetition} of {self._options.repeat}' if self._options.repeat > 1 else ''}")
                try:
                    for workload in self._workloads:
                        self._command(guest, f"policy {cell.policy} fresh=yes")
                        self.result["runs"].append(self._run_workload(guest, counter, cell, workload, repetition))
                except Unsupported as error:
                    self.say(f"    skipped: {error}")
                    self.result["skipped"].append({**dataclasses.asdict(cell), "why": str(error)})
                self._command(guest, "dmesg-check clear")
                yield cell
            guest.power_off()
        for name in ("initrd", "disk.raw"):
            (rundir / name).unlink(missing_ok=True)

    def _host_for(self, cell: Cell, config: GuestConfig, rundir: Path) -> GuestHost:
        """The host of a cell's guest; `config` gets the device that the guest is to drive."""
        if cell.backend == "emulated":
            return emulated_host(self._testbed, config, rundir)
        config.passthrough = [TestbedHost.DEVICES[0]]
        return self._testbed.host(rundir, f"vfio_iommu_type1.dma_entry_limit={ENTRY_LIMIT}")

    def _run_workload(self, guest: Guest, counter: Counter, cell: Cell, workload: Workload,
                      repetition: int) -> dict:
        counts: list[Counts] = []
        rounds_to_wait = workload.rounds

        def prepared() -> None:
            nonlocal rounds_to_wait
            rounds_to_wait -= 1
            if rounds_to_wait == 0:
                counter.start()

        def measured() -> None:
            if rounds_to_wait == 0:
                counts.append(counter.stop())

        data = self._command(guest, f"{workload.command} rounds={workload.rounds} barrier=yes",
                             {"prepared": prepared, "measured": measured})
        timed, counted = data["rounds"][0], data["rounds"][-1]
        self.say(f"    {workload.name}")
        return {"viommu": cell.viommu, "policy": cell.policy, "kernel": cell.kernel,
                "backend": cell.backend, "workload": workload.name, "repetition": repetition,
                "pages_mapped": workload.pages_mapped, "guest": timed,
                "counted_operations": _operations(counted),
                "invalidations": counts[0].invalidations, "shadow": counts[0].shadow,
                "host_iommu": counts[0].host_iommu}

    @staticmethod
    def _command(guest: Guest, line: str, phases: Phases | None = None) -> dict:
        result = guest.command(line, phases)
        if result.status == ExitCode.ENVIRONMENT and (result.error or "").startswith("unsupported"):
            raise Unsupported(result.error)
        if not result.ok:
            raise UserError(ExitCode.GUEST_FAILED, f"'{line}' failed: {result.error} "
                            f"{json.dumps(result.data)[:2000]}")
        return result.data

    def _save(self) -> None:
        partial = self.out / "result.json.partial"
        partial.write_text(json.dumps(self.result, indent=1) + "\n")
        partial.replace(self.out / "result.json")


def emulated_host(testbed: Testbed, config: GuestConfig, rundir: Path) -> LocalHost:
    """This machine as the host of a guest whose NVMe QEMU emulates; `config` gets that device."""
    config.kvm = kvm_runs_guests()
    host = LocalHost(rundir, testbed.qemu.binary)
    host.add_nvme(config, TestbedOptions.disk_bytes)
    return host


def _operations(data: dict) -> int | None:
    """How many operations a workload did: maps for hold, I/Os for fio."""
    if "operations" in data:
        return data["operations"]
    sides = [data[side] for side in ("read", "write") if data.get(side)]
    return sum(side["ios"] for side in sides) if sides else None
