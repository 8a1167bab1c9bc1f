# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel with guest-kernel-patches/, as scripts/regress tries it: data under every policy, settings written while
I/O runs, its KUnit tests; and that a broken patch does not get past."""

import re
import tempfile
import time
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

from umbra.project import TREE
from umbra.vm.agent_commands import POLICIES

from vm_case import VmCase

LIMIT = 1500


class RegressCase(VmCase):
    def regress(self, *words: str, status: int = 0) -> dict[str, str]:
        """Runs scripts/regress; returns its cases, each with `ok`, `not ok` or `skip`."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            done = self.run_script("regress", "--offline", "--out", str(self.run_directory()), "--junit", str(report),
                                   *words, timeout=LIMIT)
            said = f"{done.stdout}\n{done.stderr}"
            self.assertEqual(done.returncode, status, said)
            verdicts = self.verdicts(done.stdout)
            cases = xml.parse(report).getroot().findall("testsuite/testcase")
        self.assertTrue(done.stdout.startswith(f"KTAP version 1\n1..{len(verdicts)}\n"), said)
        self.assertEqual(len(cases), len(verdicts))
        return verdicts

    @staticmethod
    def verdicts(report: str) -> dict[str, str]:
        found = re.findall(r"^(ok|not ok) \d+ (\S+)( # SKIP .*)?$", report, re.MULTILINE)
        return {name: "skip" if skipped else word for word, name, skipped in found}

    def all_ok(self, verdicts: dict[str, str], *names: str) -> None:
        """All cases passed, and those named are among them."""
        self.assertEqual(set(verdicts.values()), {"ok"}, verdicts)
        for name in names:
            self.assertIn(name, verdicts)


class PatchedPolicies:
    """Mixed into one test case a vIOMMU."""
    VIOMMU = ""
    STEPS: tuple[str, ...] = ("counters", "baseline", "log")       # for each policy
    FURTHER: tuple[str, ...] = ("boot", "budget", "console")

    def test_policies(self):
        steps = [f"{policy}/{step}" for policy in POLICIES for step in self.STEPS]
        cases = [f"{self.VIOMMU}/{step}" for step in (*self.FURTHER, *steps)]
        verdicts = self.regress("--viommu", self.VIOMMU, *(word for case in cases for word in ("--only", case)))
        self.all_ok(verdicts, "build", *cases)


class PatchedPoliciesUmbra(PatchedPolicies, RegressCase):
    """The data, and settings that change meanwhile, only here: that depends on the kernel, not on the vIOMMU."""
    VIOMMU = "umbra"
    STEPS = ("verify", "shadow", *PatchedPolicies.STEPS)
    FURTHER = (*PatchedPolicies.FURTHER, "tunables")


class PatchedPoliciesQemuIntel(PatchedPolicies, RegressCase):
    VIOMMU = "qemu-intel"


class PatchedKernelTests(RegressCase):
    def test_kunit(self):
        self.all_ok(self.regress("--only", "kunit/*"), "kunit/iova-fq")

    def test_order_of_releases(self):
        verdicts = self.regress("--viommu", "umbra", "--only", "releases/*")
        self.all_ok(verdicts, *(f"releases/umbra/{policy}/{rule}"
                                for policy in POLICIES for rule in ("after-flush", "leaf-hint")))


class IovaCaches(VmCase):
    CPUS = 4

    def caches(self, guest) -> dict[str, int]:
        """Of single pages."""
        group = self.do(guest, "device")["group"]
        shown = self.do(guest, f"exec cat /sys/kernel/debug/iommu/groups/{group}/iova_rcache")["stdout"]
        header, row, *_ = shown.splitlines()
        return dict(zip(header.split(), map(int, row.split()), strict=True))

    def use_all_cpus(self, guest) -> None:
        self.do(guest, f"workload hold pages_mapped=0 threads={self.CPUS} batch=512 operations=4096")

    def test_idle_cpus_give_back_what_they_cached(self):
        with self.direct(viommu="qemu-intel", patched=True, cpus=self.CPUS, nvme=True) as guest:
            guest.wait_ready()
            self.do(guest, "policy strict fresh=yes")
            self.use_all_cpus(guest)
            kept = self.caches(guest)
            self.assertGreater(kept["hits"], 0)
            self.assertGreater(kept["cached"], 0)
            self.do(guest, "exec sleep 1")
            later = self.caches(guest)
            # The depot shrinks by itself, to a magazine for each CPU.
            self.assertEqual((later["cached"], later["trimmed"]), (kept["cached"], 0), "not asked for")

            self.do(guest, "exec echo 100 >/sys/module/iova/parameters/trim_ms")
            self.use_all_cpus(guest)
            limit = time.monotonic() + LIMIT
            while (given_back := self.caches(guest))["cached"] and time.monotonic() < limit:
                time.sleep(0.2)
            self.assertEqual(given_back["cached"], 0)
            self.assertGreater(given_back["trimmed"], 0)
            print(f"IOVAs of one page that {self.CPUS} CPUs cached: {kept['cached']}, "
                  f"after trimming {given_back['cached']}")

            self.use_all_cpus(guest)
            self.assertGreater(self.caches(guest)["hits"], given_back["hits"], "and they are used as before")
            self.do(guest, "dmesg-check")
            guest.power_off()


class BrokenPatch(RegressCase):
    def test_ends_with_exit_code_1(self):
        patch = TREE / "tests/regress/broken-patches/frees-before-flush.patch"
        case = "releases/qemu-intel/fq-range/after-flush"
        verdicts = self.regress("--viommu", "qemu-intel", "--extra-patch", str(patch), "--only", case, status=1)
        self.assertEqual(verdicts, {"build": "ok", case: "not ok"})

    def test_each_that_needs_no_testbed_is_caught(self):
        # The other one takes as long as all of these: scripts/regress --self-test
        cases = [f"self-test/{name}" for name in ("forgets-a-range", "frees-before-flush", "wrong-ih")]
        verdicts = self.regress("--self-test", "--viommu", "qemu-intel",
                                *(word for case in cases for word in ("--only", case)))
        self.all_ok(verdicts, *cases)


if __name__ == "__main__":
    unittest.main()
