# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured, and the table of it: all that needs no VM."""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from umbra.commands import measure
from umbra.errors import UserError
from umbra.measuring import plan, results, session
from umbra.vm.guest import AgentResult

from options_case import OptionsCase


class Options(OptionsCase):
    def test_measure_takes_what_is_named_twice_once(self):
        once = plan.chosen_cells(measure.parse(["--viommu", "umbra", "--policy", "strict", "--backend", "type1"]))
        twice = plan.chosen_cells(measure.parse(["--viommu", "umbra", "--viommu", "umbra", "--policy", "strict",
                                                 "--policy", "strict", "--backend", "type1"]))
        self.assertEqual(twice, once)

    def test_what_was_measured_before_an_interruption_is_kept_and_shown(self):
        class Interrupted:
            out, result, failures = Path("/out"), {"runs": [], "skipped": []}, []

            def __init__(self, _options):
                pass

            def prepare(self):
                pass

            def run(self):
                self.result["runs"].append("something")
                raise KeyboardInterrupt

        shown = io.StringIO()
        with mock.patch.object(measure, "Session", Interrupted), contextlib.redirect_stdout(shown), \
                self.assertRaises(KeyboardInterrupt):
            measure.main(["--json"])
        self.assertIn("something", shown.getvalue())

    def test_measure(self):
        for arguments in (["--repeat", "0"], ["--smp", "0"], ["--policy", "lazy"], ["--bogus"]):
            self.refused(measure.parse, *arguments)
        with self.assertRaises(UserError):
            plan.chosen_workloads(measure.parse(["--workload", "nothing-*"]))
        with self.assertRaises(UserError):
            plan.chosen_cells(measure.parse(["--policy", "fq-range"]))

    def test_quick_is_one_workload(self):
        self.assertEqual(len(plan.chosen_workloads(measure.parse(["--quick"]))), 1)

    def test_workload_names_are_unique(self):
        for cpus in (1, 2, 4):
            names = [workload.name for workload in plan.workloads(cpus)]
            self.assertEqual(len(names), len(set(names)))


class Report(unittest.TestCase):
    def run_of(self, repetition: int, p50: int) -> dict:
        return {"viommu": "qemu-intel", "policy": "strict", "kernel": "stock", "backend": "type1",
                "workload": "hold-256", "repetition": repetition, "pages_mapped": 256,
                "guest": {"map_ns": {"p50": p50, "p99": 9000}, "unmap_ns": {"p50": None}},
                "counted_operations": 512,
                "invalidations": {"iotlb_page": 1024, "iotlb_domain": 0, "iotlb_global": None},
                "shadow": {"host_map_calls": None, "host_unmap_calls": 512},
                "host_iommu": {"iotlb_page": 1, "iotlb_domain": None}}

    def test_absent_is_a_dash_and_zero_is_zero(self):
        text = results.table_of({"runs": [self.run_of(1, 5000)]}, markdown=True)
        cells = [cell.strip() for cell in text.splitlines()[-1].strip("|").split("|")]
        row = dict(zip(results.HEADER, cells, strict=True))
        self.assertEqual(row["map µs"], "5.0")
        self.assertEqual(row["unmap µs"], "-")
        self.assertEqual(row["VFIO unmap"], "512")
        self.assertEqual(row["DSI"], "0")
        self.assertEqual(row["GI"], "-")
        self.assertEqual(row["VFIO map"], "-")
        self.assertEqual(row["host IOTLB"], "-")

    def test_repetitions_show_median_and_spread(self):
        runs = [self.run_of(i, p50) for i, p50 in enumerate((4000, 6000, 5000))]
        self.assertIn("5.0 ±1.0", results.table_of({"runs": runs}, markdown=False))

    def test_policy_that_is_not_there_is_told_from_one_that_fails(self):
        def guest(status: int, error: str | None):
            return SimpleNamespace(command=lambda line, phases: AgentResult(line, status, error, {"a": 1}))
        self.assertEqual(session.Session._command(guest(0, None), "policy fq-range"), {"a": 1})
        with self.assertRaises(session.Unsupported):
            session.Session._command(guest(4, "unsupported: this kernel has no fq_flush"), "policy fq-range")
        for status, error in ((4, "no device"), (1, "unsupported"), (1, "the kernel refuses it")):
            with self.assertRaises(UserError):
                session.Session._command(guest(status, error), "policy fq-range")

    def test_report_refuses_what_is_no_result(self):
        for content in ("", "[]", json.dumps({"schema": 99}), json.dumps({"schema": 1}),
                        json.dumps({"schema": 1, "levels": {}}), json.dumps({"schema": 1, "runs": [{}], "skipped": []}),
                        json.dumps({"kind": "bench", "schema": 1, "runs": [], "skipped": []})):
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(content)
                file.flush()
                with self.assertRaises(UserError):
                    results.load(Path(file.name))


if __name__ == "__main__":
    unittest.main()
