# SPDX-License-Identifier: GPL-2.0-or-later
"""Policies × workloads in the testbed, on one vIOMMU: the device works, data is right, and the invalidations that the
unit gets are those that each policy promises."""

import dataclasses
import functools
import json
from pathlib import Path

from umbra.errors import ExitCode, UserError
from umbra.regress.baseline import Baseline
from umbra.regress.lab import Lab, complaints
from umbra.regress.scene import Failed, Record, Scene, Skipped, Verdict
from umbra.vm.agent_commands import POLICIES
from umbra.vm.counts import Counter, Counts
from umbra.vm.guest import AgentResult, Guest, Phases
from umbra.vm.viommu import Viommu

# Seconds after which a workload hangs, for all that is known: under lockdep and KASAN, and nested in an emulator, one
# I/O takes a tenth of a second.
_HANGS = 600


def _workload(words: str) -> str:
    return f"workload {words} limit={_HANGS}"


# Reported with what they measured; what they must not do is fail.
WORKLOADS = {
    "hold-4096": _workload("hold pages_mapped=4096 batch=64 operations=512"),
    "dma-map-1p": _workload("dma-map pages=1 seconds=1"),
    "dma-map-16p": _workload("dma-map pages=16 seconds=1"),
    "nvme-randread": _workload("fio rw=randread bs=4k iodepth=16 seconds=1"),
    "nvme-randwrite": _workload("fio rw=randwrite bs=4k iodepth=16 seconds=1"),
    "nvme-write-128k": _workload("fio rw=write bs=128k iodepth=4 seconds=1"),
}
_VERIFY = _workload("verify size=2m")

# The counted workload. In a new domain and without a timeout it sends the same invalidations each time.
OPERATIONS = 1024
COUNTED = _workload(f"hold pages_mapped=1024 batch=64 operations={OPERATIONS} barrier=yes")
_NO_TIMEOUT = "fq_timeout_ms=60000"
# The single queue has 32,768 entries, so that only its watermark lets it drain in a short run.
_COUNTED_SETTINGS = {"strict": "", "fq-domain": _NO_TIMEOUT, "fq-single": f"{_NO_TIMEOUT} fq_watermark=256",
                     "fq-range": _NO_TIMEOUT}
# At most one submission for so many unmaps, beside those of the maps; where a timeout drains as well, it depends on the
# machine's speed how many there are.
_BATCHED, _BATCHED_BY_TIME = 16, 2


def ask(guest: Guest, line: str, phases: Phases | None = None) -> dict:
    """A command to the guest's agent; its failure is the case's."""
    result: AgentResult = guest.command(line, phases)
    if result.status == 4:
        raise Skipped(result.error or line)
    if not result.ok:
        raise Failed(f"'{line}': {result.error} {json.dumps(result.data)[:2000]}")
    return result.data


def clean_log(guest: Guest) -> None:
    """Fails if the kernel's log, emptied after the last look, has a complaint or an IOMMU fault."""
    result = guest.command("dmesg-check clear")
    if not result.ok:
        raise Failed("\n".join([str(result.error), *result.data.get("lines", [])]))


@dataclasses.dataclass(frozen=True)
class Sent:
    """Invalidation descriptors that the unit got from the counted workload."""
    psi: int
    dsi: int
    gi: int
    wait: int

    @staticmethod
    def of(counts: Counts) -> "Sent":
        numbers = counts.invalidations
        if any(numbers.get(field) is None for field in ("iotlb_page", "iotlb_domain", "iotlb_global", "wait")):
            raise Skipped("the invalidations could not be counted")
        return Sent(numbers["iotlb_page"], numbers["iotlb_domain"], numbers["iotlb_global"], numbers["wait"])

    def per_thousand(self) -> dict[str, float]:
        return {name: 1000 * getattr(self, name) / OPERATIONS for name in ("psi", "dsi", "wait")}


def broken_promises(policy: str, sent: Sent, timeouts: bool = False) -> list[str]:
    """What the invalidations of OPERATIONS maps and unmaps should not have been under this policy."""
    found = []
    most = OPERATIONS // (_BATCHED_BY_TIME if timeouts else _BATCHED)

    def promise(kept: bool, sentence: str) -> None:
        if not kept:
            found.append(f"{policy}: {sentence} ({sent.psi} PSI, {sent.dsi} DSI, {sent.gi} global, {sent.wait} waits "
                         f"for {OPERATIONS} maps and unmaps)")

    promise(sent.gi == 0, "global invalidations were sent")
    promise(sent.psi >= OPERATIONS, "not every map was announced")
    if policy == "strict":
        promise(sent.dsi == 0, "domain-selective invalidations were sent")
        promise(sent.psi >= 2 * OPERATIONS, "not every unmap was invalidated")
        return found
    promise(sent.wait <= OPERATIONS + most, "unmaps are not batched")
    if policy == "fq-range":
        promise(sent.dsi == 0, "domain-selective invalidations were sent although the budget suffices")
        promise(sent.psi > OPERATIONS, "no unmap was invalidated")
        promise(sent.psi < 2 * OPERATIONS, "ranges were not merged")
    else:
        promise(sent.dsi > 0, "no unmap was invalidated")
        promise(sent.psi < OPERATIONS + OPERATIONS // _BATCHED, "page-selective invalidations were sent for unmaps")
    return found


# Writes every knob while verified I/O runs; each write has to succeed. Ends with the number of rounds.
_TUNE = """group=/sys/kernel/iommu_groups/GROUP; rm -f /tmp/tuned;
(rounds=0; while [ ! -e /tmp/tuned ]; do
for setting in fq_flush=domain fq_watermark=1 fq_queue=single fq_max_psi=0 fq_flush=range fq_timeout_ms=1
 fq_watermark=64 fq_queue=percpu fq_max_psi=512 fq_timeout_ms=1000 fq_watermark=0 fq_timeout_ms=10; do
echo ${setting#*=} >$group/${setting%%=*} || echo refused: $setting; done;
rounds=$((rounds + 1)); done; echo rounds: $rounds) >/tmp/tuner 2>&1 &
fio --name=tuned --filename=/dev/BLOCK --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bs=4k --size=2m
 --loops=2 --verify=crc32c --verify_fatal=1 >/tmp/fio 2>&1; status=$?; touch /tmp/tuned; wait;
[ $status = 0 ] || cat /tmp/fio; cat /tmp/tuner; exit $status"""


class Matrix(Scene):
    def __init__(self, viommu: str, baseline: Baseline, update_baseline: bool):
        self._viommu = viommu
        self._baseline = baseline
        self._update = update_baseline
        self._booted = False

    def cases(self) -> list[str]:
        names = [f"{self._viommu}/boot"]
        for policy in POLICIES:
            names += [f"{self._viommu}/{policy}/{step}" for step in self._steps()]
        return names + [f"{self._viommu}/budget", f"{self._viommu}/tunables", f"{self._viommu}/console"]

    def _steps(self) -> list[str]:
        shadow = ["shadow"] if self._viommu == "umbra" else []
        return ["verify", *WORKLOADS, *shadow, "counters", "baseline", "log"]

    def run(self, lab: Lab, record: Record) -> None:
        todo = [policy for policy in POLICIES if record.wants(f"{self._viommu}/{policy}/*")]
        while True:
            # A policy that ends the guest does not hide what the others do.
            try:
                self._boot(lab, record, todo)
                return
            except UserError as error:
                if error.code == ExitCode.ENVIRONMENT or not self._booted or not todo:
                    raise
                record.settle(Verdict.FAIL, str(error), f"{self._viommu}/{todo.pop(0)}/*")

    def _boot(self, lab: Lab, record: Record, todo: list[str]) -> None:
        self._booted = False
        with lab.testbed(self._viommu) as guest:
            ready = guest.wait_ready()
            self._booted = True
            offered = ready.get("policies") or []
            record.run(f"{self._viommu}/boot", lambda notes: self._check_boot(guest, ready, notes))
            counter = Counter(guest)
            while todo:
                if todo[0] in offered:
                    self._policy(guest, counter, todo[0], record)
                else:
                    record.settle(Verdict.SKIP, f"this kernel does not offer {todo[0]}", f"{self._viommu}/{todo[0]}/*")
                todo.pop(0)
            if "fq-range" in offered:
                record.run(f"{self._viommu}/budget", lambda notes: self._check_budget(guest, counter, notes))
                record.run(f"{self._viommu}/tunables", lambda notes: self._check_tunables(guest, notes))
            else:
                record.settle(Verdict.SKIP, "this kernel does not flush by range", f"{self._viommu}/budget",
                              f"{self._viommu}/tunables")
            guest.power_off()
            console = guest.console_log
        record.run(f"{self._viommu}/console", lambda notes: self._check_console(console))

    def _policy(self, guest: Guest, counter: Counter, policy: str, record: Record) -> None:
        cell = f"{self._viommu}/{policy}"
        if record.wants(*(f"{cell}/{step}" for step in ("verify", "shadow", *WORKLOADS))):
            self._set_policy(guest, policy, "", record)
        record.run(f"{cell}/verify", lambda notes: self._check_data(guest))
        for name, line in WORKLOADS.items():
            record.run(f"{cell}/{name}", functools.partial(self._run_workload, guest, line))
        record.run(f"{cell}/shadow", lambda notes: self._check_shadow(guest))
        if record.wants(f"{cell}/counters", f"{cell}/baseline"):
            settings = _COUNTED_SETTINGS[policy]
            if settings and not self._tunable(guest):
                settings = ""
            self._set_policy(guest, policy, settings, record)
            counted: list[Sent] = []
            record.run(f"{cell}/counters", lambda notes: self._check_counters(guest, counter, policy, counted, notes))
            record.run(f"{cell}/baseline", lambda notes: self._check_baseline(guest, counter, cell, counted, notes))
        record.run(f"{cell}/log", lambda notes: clean_log(guest))

    def _set_policy(self, guest: Guest, policy: str, settings: str, record: Record) -> None:
        try:
            ask(guest, f"policy {policy} fresh=yes {settings}".strip())
        except (Failed, Skipped) as reason:
            # It is among those that the kernel offers.
            record.settle(Verdict.FAIL, str(reason), f"{self._viommu}/{policy}/*")

    @staticmethod
    def _tunable(guest: Guest) -> bool:
        return "fq-range" in (guest.ready.get("policies") or [])

    def _check_boot(self, guest: Guest, ready: dict, notes: list[str]) -> None:
        notes.append(f"Linux {ready.get('kernel')}, policies: {', '.join(ready.get('policies') or ['none'])}")
        device = ready.get("device") or {}
        if not device.get("iommu") or not device.get("block"):
            raise Failed(f"The NVMe is not there, or not behind the vIOMMU: {json.dumps(device)}")
        clean_log(guest)

    @staticmethod
    def _run_workload(guest: Guest, line: str, notes: list[str]) -> None:
        notes.append(_figures(ask(guest, line)))

    @staticmethod
    def _check_data(guest: Guest) -> None:
        data = ask(guest, _VERIFY)
        if data.get("corrupt") or not data.get("verified_bytes"):
            raise Failed(f"Data did not compare equal: {json.dumps(data)[:2000]}")

    @staticmethod
    def _check_shadow(guest: Guest) -> None:
        """Umbra compares what it has mapped with the guest's tables, once every queue has been drained."""
        ask(guest, "exec sleep 2")
        verification = Viommu(guest.qmp).verify()
        if not verification["clean"] or not verification["complete"]:
            raise Failed(f"The shadow is not the guest's table: {json.dumps(verification)[:2000]}")

    @staticmethod
    def _count(guest: Guest, counter: Counter) -> Sent:
        counts: list[Counts] = []
        ask(guest, COUNTED, {"prepared": counter.start, "measured": lambda: counts.append(counter.stop())})
        return Sent.of(counts[0])

    def _check_counters(self, guest: Guest, counter: Counter, policy: str, counted: list[Sent],
                        notes: list[str]) -> None:
        counted.append(self._count(guest, counter))
        notes.append(f"{OPERATIONS} maps and unmaps: {counted[0].psi} PSI, {counted[0].dsi} DSI, "
                     f"{counted[0].wait} waits")
        broken = broken_promises(policy, counted[0], timeouts=not self._tunable(guest))
        if broken:
            raise Failed("\n".join(broken))

    def _check_baseline(self, guest: Guest, counter: Counter, cell: str, counted: list[Sent],
                        notes: list[str]) -> None:
        if not counted:
            counted.append(self._count(guest, counter))
        counts = counted[0].per_thousand()
        if self._update:
            self._baseline.update(cell, COUNTED, counts)
            notes.append(f"stored in {self._baseline.path}")
            return
        if not self._baseline.knows(cell, COUNTED):
            raise Skipped(f"{self._baseline.path} has no counts for {cell}")
        comparison = self._baseline.compare(cell, counts)
        notes += comparison.better
        if comparison.worse:
            raise Failed("\n".join(comparison.worse))

    def _check_budget(self, guest: Guest, counter: Counter, notes: list[str]) -> None:
        """Beyond fq_max_psi a drain by range becomes a domain flush."""
        ask(guest, f"policy fq-range fresh=yes fq_max_psi=0 {_NO_TIMEOUT}")
        sent = self._count(guest, counter)
        notes.append(f"fq_max_psi=0: {sent.psi} PSI, {sent.dsi} DSI, {sent.wait} waits")
        if not sent.dsi or sent.psi >= OPERATIONS + OPERATIONS // _BATCHED:
            raise Failed("Without a budget, drains still go by range.")

    @staticmethod
    def _check_tunables(guest: Guest, notes: list[str]) -> None:
        ask(guest, "policy fq-range fresh=yes")
        device = ask(guest, "device")
        script = " ".join(_TUNE.replace("GROUP", str(device["group"])).replace("BLOCK", device["block"]).split())
        text = ask(guest, f"exec -t 200 {script}")["stdout"]
        notes.append(text.strip())
        if "refused" in text:
            raise Failed("A setting was refused while I/O was running.")
        clean_log(guest)

    @staticmethod
    def _check_console(console: Path) -> None:
        lines = complaints(console)
        if lines:
            raise Failed("\n".join(lines[:20]))


def _figures(data: dict) -> str:
    """What a workload measured, in a line."""
    parts = []
    for side in ("map", "unmap"):
        block = data.get(f"{side}_ns") or {}
        value = block.get("p50", block.get("mean"))
        if value is not None:
            parts.append(f"{side} {value / 1000:.1f} µs")
    for side in ("read", "write"):
        if data.get(side):
            parts.append(f"{side} {data[side]['iops']:.0f} IOPS, "
                         f"{data[side]['bandwidth_bytes_per_second'] / 1e6:.1f} MB/s")
    return ", ".join(parts)
