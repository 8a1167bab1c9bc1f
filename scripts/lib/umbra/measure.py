# SPDX-License-Identifier: GPL-2.0-or-later
"""measure: what caching mode costs, for each vIOMMU, flush policy, VFIO backend and workload.

A guest is booted for each vIOMMU, backend and kernel, and measured under one policy after the other. Every workload
gets a domain that is new: one that was used before keeps the table pages of what was mapped in it, and a vIOMMU that
reads whole tables pays for them. It runs twice: once timed, with nothing traced, and once counted, with traces on; so
counting does not slow what is timed.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from umbra import command, project, table
from umbra.building import products
from umbra.errors import ExitCode, UserError
from umbra.vm.config import TESTBED_MEMORY, GuestConfig, kvm_runs_guests
from umbra.vm.counts import Counter, Counts
from umbra.vm.guest import Guest, fresh_directory
from umbra.vm.host import GuestHost, LocalHost, TestbedHost, TestbedOptions
from umbra.vm.testbed import Testbed

SCHEMA = 1
VIOMMUS = ("umbra", "qemu-intel", "qemu-virtio")
POLICIES = ("strict", "fq-domain", "fq-single", "fq-range")
# Behind `emulated` there is no VFIO: QEMU emulates the NVMe and translates each access of it.
BACKENDS = ("type1", "iommufd", "emulated")
DEFAULT_BACKENDS = ("type1", "iommufd")
# Policies that an unpatched kernel can be told to use.
STOCK_POLICIES = ("strict", "fq-domain")

# type1 takes 65,535 mappings a container by default. Measurements raise that in the testbed host, so
# that 65,536 held pages fit; tests/guest lowers it, to see what happens beyond.
ENTRY_LIMIT = 1048576

EPILOG = """\
examples:
  scripts/measure --quick                          one workload, both policies
  scripts/measure                                  everything, under 15 minutes
  scripts/measure --viommu qemu-intel --backend type1 --workload 'hold-*' --repeat 3
  scripts/measure --report build/measure/DIR/result.json --markdown

Counts are those of the counted round; `ops` is how many operations the guest did in it. VFIO calls
are counted in the VFIO host's kernel, host invalidations at the testbed's own IOMMU. A policy that the
guest's kernel or the vIOMMU's driver does not know is skipped and named at the end.
exit codes: 0 pass, 1 a guest failed, 2 usage, 3 time limit, 4 this machine cannot do it
"""


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
    return Workload(f"hold-{pages}", f"workload hold pages_mapped={pages} layout=reversed batch=64 operations=2048", pages,
                    quick)


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


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = command.Parser(prog="measure", epilog=EPILOG, description=(
        "Measures what caching mode costs, for each vIOMMU, flush policy, backend and workload."))
    parser.add_argument("--quick", action="store_true", help="one workload, type1 only")
    parser.add_argument("--viommu", action="append", choices=VIOMMUS, help="repeatable")
    parser.add_argument("--policy", action="append", choices=POLICIES, help="repeatable")
    parser.add_argument("--backend", action="append", choices=BACKENDS,
                        help=f"repeatable (default: {', '.join(DEFAULT_BACKENDS)})")
    parser.add_argument("--kernel", action="append", choices=("stock", "patched"),
                        help="repeatable (default stock)")
    parser.add_argument("--workload", action="append", metavar="GLOB",
                        help="only workloads whose name matches (repeatable; --list names them)")
    parser.add_argument("--smp", type=int, default=1, metavar="N", help="guest CPUs (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=1, metavar="N",
                        help="boot each cell N times; the table shows medians and the spread")
    parser.add_argument("--out", type=Path, help="folder (default: time-stamped, below build/measure)")
    parser.add_argument("--report", type=Path, metavar="RESULT.JSON",
                        help="print the table of an earlier run and stop")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--json", action="store_true", help="print result.json instead of the table")
    parser.add_argument("--list", action="store_true", help="list the workloads and stop")
    command.add_common_options(parser)
    options = parser.parse_args(arguments)
    if not 1 <= options.repeat <= 1000:
        raise UserError(ExitCode.USAGE, f"--repeat {options.repeat}: 1 to 1000.")
    if not 1 <= options.smp <= 64:
        raise UserError(ExitCode.USAGE, f"--smp {options.smp}: 1 to 64.")
    return options


def chosen_workloads(options: argparse.Namespace) -> list[Workload]:
    import fnmatch
    every = workloads(options.smp)
    if options.workload:
        chosen = [w for w in every if any(fnmatch.fnmatch(w.name, g) for g in options.workload)]
        if not chosen:
            raise UserError(ExitCode.USAGE, f"No workload matches {' '.join(options.workload)}.",
                            "measure --list names them.")
        return chosen
    return [w for w in every if (w.quick if options.quick else w.default)]


def chosen_cells(options: argparse.Namespace) -> list[Cell]:
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


class Unsupported(Exception):
    """The guest's kernel, or the driver of its vIOMMU, has no such policy."""


class Session:
    """All of one invocation: builds once, then runs cell after cell into `out`/result.json.

    `work` and `cells`: what to run instead of what the options say.
    """

    def __init__(self, options: argparse.Namespace, work: list[Workload] | None = None,
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
        self.result = {"schema": SCHEMA, "machine": machine(), "versions": self._versions(),
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
    def _command(guest: Guest, line: str, phases=None) -> dict:
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


def _operations(data: dict) -> int | None:
    """How many operations a workload did: maps for hold, I/Os for fio."""
    if "operations" in data:
        return data["operations"]
    sides = [data[side] for side in ("read", "write") if data.get(side)]
    return sum(side["ios"] for side in sides) if sides else None


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


def report(result: dict, markdown: bool) -> str:
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
    try:
        result = json.loads(path.read_text())
    except OSError as error:
        raise UserError(ExitCode.USAGE, f"--report {path}: {error.strerror}.") from None
    except ValueError as error:
        raise UserError(ExitCode.USAGE, f"--report {path} is no JSON: {error}.") from None
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        raise UserError(ExitCode.USAGE, f"--report {path}: not a result of schema {SCHEMA}.")
    return result


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.list:
        for workload in workloads(options.smp):
            print(f"{workload.name:24} {workload.timed}")
        return ExitCode.PASS
    if options.report:
        print(report(load(options.report), options.markdown))
        return ExitCode.PASS
    session = Session(options)
    session.prepare()
    session.run()
    if options.json:
        print(json.dumps(session.result))
    elif session.result["runs"]:
        print(report(session.result, options.markdown))
    print(f"result: {session.out / 'result.json'}", file=sys.stderr)
    for cell in session.result["skipped"]:
        print(f"skipped: {cell['viommu']} {cell['policy']} {cell['backend']} {cell['kernel']}: {cell['why']}",
              file=sys.stderr)
    for failure in session.failures:
        print(f"failed: {failure}", file=sys.stderr)
    if session.failures:
        return ExitCode.GUEST_FAILED
    return ExitCode.PASS if session.result["runs"] else ExitCode.ENVIRONMENT


if __name__ == "__main__":
    command.run(lambda: main(sys.argv[1:]), "measure")
