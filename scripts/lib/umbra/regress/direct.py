# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenes in a VM of its own, without the testbed: the order of releases, KUnit, a boot and nothing more."""

import functools

from umbra.regress import ktap, order, trace
from umbra.regress.lab import KUNIT_FOLDER, Lab, complaints
from umbra.regress.matrix import ask, clean_log
from umbra.regress.scene import Failed, Record, Scene, Skipped, Verdict
from umbra.vm.agent_commands import POLICIES
from umbra.vm.guest import Guest

# Small maps on every path of a queue, then maps that take a whole table each.
_TRACED = ("workload hold pages_mapped=16 pages=1 batch=64 operations=640",
           "workload hold pages_mapped=0 pages=512 batch=8 operations=24")


class Releases(Scene):
    """Nothing is released before it was invalidated, and page tables are invalidated without the leaf-only hint.

    Two cases a policy, both decided by one trace (umbra.regress.order says what the rules are).
    """

    def __init__(self, viommu: str):
        self._viommu = viommu

    def cases(self) -> list[str]:
        return [f"{self._cell(policy)}/{rule}" for policy in POLICIES for rule in ("after-flush", "leaf-hint")]

    def _cell(self, policy: str) -> str:
        return f"releases/{self._viommu}/{policy}"

    def run(self, lab: Lab, record: Record) -> None:
        # Two CPUs, so that a drain by one can meet an allocation by the other.
        with lab.direct(self._viommu, append="intel_iommu=sp_off", cpus=2) as guest:
            offered = guest.wait_ready().get("policies") or []
            try:
                trace.set_up(guest)
            except Skipped as reason:
                record.settle(Verdict.SKIP, str(reason), *self.cases())
                return
            for policy in POLICIES:
                names = (f"{self._cell(policy)}/after-flush", f"{self._cell(policy)}/leaf-hint")
                if not record.wants(*names):
                    continue
                if policy not in offered:
                    record.settle(Verdict.SKIP, f"this kernel does not offer {policy}", *names)
                    continue
                found: list[order.Findings] = []
                record.run(names[0], functools.partial(self._check_order, guest, policy, found))
                record.run(names[1], functools.partial(self._check_hint, guest, policy, found))
            guest.power_off()

    @staticmethod
    def _find(guest: Guest, policy: str, found: list[order.Findings]) -> order.Findings:
        if not found:
            ask(guest, f"policy {policy} fresh=yes")
            trace.start(guest)
            for line in _TRACED:
                ask(guest, line)
            found.append(order.check(trace.parse(trace.stop(guest))))
        findings = found[0]
        if not findings.unmaps or not findings.releases or not findings.tables:
            raise Failed(f"The trace does not show what was traced: {findings}")
        return findings

    def _check_order(self, guest: Guest, policy: str, found: list[order.Findings], notes: list[str]) -> None:
        findings = self._find(guest, policy, found)
        notes.append(f"{findings.unmaps} unmaps, {findings.releases} releases, {findings.page_invalidations} PSI, "
                     f"{findings.domain_invalidations} DSI")
        if findings.early:
            raise Failed("\n".join([f"{findings.early_count} of {findings.releases} releases came too early.",
                                    *findings.early]))

    def _check_hint(self, guest: Guest, policy: str, found: list[order.Findings], notes: list[str]) -> None:
        findings = self._find(guest, policy, found)
        notes.append(f"{findings.tables} tables went away, {findings.hints} of {findings.page_invalidations} PSI had "
                     "the hint")
        if findings.hinted:
            raise Failed("\n".join([f"{findings.hinted_count} releases followed a wrong hint.", *findings.hinted]))


class Kunit(Scene):
    """The kernel's own unit tests of the flush queue, as modules in a running guest."""
    CASE = "kunit/iova-fq"

    def cases(self) -> list[str]:
        return [self.CASE]

    def run(self, lab: Lab, record: Record) -> None:
        names = {path.stem for path in lab.subject.kunit_modules}
        if "iova-fq-test" not in names:
            record.settle(Verdict.SKIP, "this kernel has no KUnit module iova-fq-test", self.CASE)
            return
        with lab.direct("none") as guest:
            guest.wait_ready()
            record.run(self.CASE, lambda notes: self._check(guest, notes))
            guest.power_off()

    @staticmethod
    def _check(guest: Guest, notes: list[str]) -> None:
        ask(guest, f"exec -t 120 insmod /{KUNIT_FOLDER}/kunit.ko && insmod /{KUNIT_FOLDER}/iova-fq-test.ko")
        text = ask(guest, "exec cat /sys/kernel/debug/kunit/iova-fq/results")["stdout"]
        results = [result for result in ktap.parse(text) if result.depth]
        failed = [result.name for result in results if not result.passed]
        notes.append(f"{len(results)} tests, {len(failed)} failed")
        if not results:
            raise Failed(f"KUnit reported no test:\n{text[:2000]}")
        if failed:
            raise Failed(f"Failed: {', '.join(failed)}\n{text[:6000]}")
        clean_log(guest)


class PlainBoot(Scene):
    """A kernel boots, and the device works under every policy that it offers: one case a kernel.

    The command line asks for drains by range. A kernel that does not know that goes on without.
    """

    def __init__(self, case: str, viommu: str):
        self._case = case
        self._viommu = viommu

    def cases(self) -> list[str]:
        return [self._case]

    def run(self, lab: Lab, record: Record) -> None:
        with lab.direct(self._viommu, append="iommu.fq_flush=range", cpus=2) as guest:
            offered = guest.wait_ready().get("policies") or []

            def check(notes: list[str]) -> None:
                notes.append(f"Linux {guest.ready.get('kernel')}, policies: {', '.join(offered)}")
                clean_log(guest)
                for policy in offered:
                    ask(guest, f"policy {policy} fresh=yes")
                    ask(guest, "workload verify size=1m")
                    clean_log(guest)
                guest.power_off()
                lines = complaints(guest.console_log)
                if lines:
                    raise Failed("\n".join(lines[:20]))
            record.run(self._case, check)
