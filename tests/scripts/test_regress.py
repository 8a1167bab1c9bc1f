# SPDX-License-Identifier: GPL-2.0-or-later
"""What scripts/regress decides by itself: selection, reports, baselines, the order of releases."""

import contextlib
import io
import json
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path
from unittest import mock

from umbra import cache, project
from umbra.building import kernel_config, kernel_image, patches
from umbra.commands import regress
from umbra.errors import ExitCode, UserError
from umbra.regress import junit, ktap, matrix, order, selftest, subject, trace
from umbra.regress.baseline import Baseline
from umbra.regress.order import Event, Kind
from umbra.regress.scene import Failed, Outcome, Record, Scene, Skipped, Verdict, choose, play


class Fixed(Scene):
    """A scene whose cases end as they are told to."""

    def __init__(self, **cases):
        self._cases = cases

    def cases(self) -> list[str]:
        return list(self._cases)

    def run(self, lab, record: Record) -> None:
        for name, effect in self._cases.items():
            record.run(name, mock.Mock(side_effect=effect))


class Scenes(unittest.TestCase):
    def play(self, *scenes: Scene, only=()) -> dict[str, Outcome]:
        outcomes: list[Outcome] = []
        play(scenes, mock.Mock(), Record(choose(scenes, list(only)), outcomes.append))
        return {outcome.case: outcome for outcome in outcomes}

    def test_each_ending_is_a_verdict(self):
        outcomes = self.play(Fixed(a=None, b=Failed("wrong"), c=Skipped("no device"), d=None))
        self.assertEqual([outcome.verdict for outcome in outcomes.values()],
                         [Verdict.PASS, Verdict.FAIL, Verdict.SKIP, Verdict.PASS])
        self.assertEqual(outcomes["b"].reason, "wrong")

    def test_the_end_of_a_guest_fails_what_it_leaves_undone_and_nothing_else(self):
        ended = UserError(ExitCode.GUEST_FAILED, "The guest kernel panicked.")
        outcomes = self.play(Fixed(a=None, b=ended, c=None), Fixed(d=None))
        self.assertEqual([outcomes[name].verdict for name in "abcd"],
                         [Verdict.PASS, Verdict.FAIL, Verdict.FAIL, Verdict.PASS])
        self.assertIn("panicked", outcomes["c"].reason)

    def test_an_environment_error_is_no_verdict(self):
        scenes = (Fixed(a=UserError(ExitCode.ENVIRONMENT, "no disk space")),)
        record = Record(choose(scenes, []), mock.Mock())
        with self.assertRaises(UserError):
            play(scenes, None, record)
        self.assertEqual(record.outcomes, [])

    def test_only_runs_what_matches(self):
        self.assertEqual(list(self.play(Fixed(ab=None, cd=None), Fixed(ae=None), only=["a*"])), ["ab", "ae"])

    def test_a_pattern_that_matches_nothing_is_refused(self):
        with self.assertRaises(UserError) as caught:
            self.play(Fixed(a=None), only=["a", "x*"])
        self.assertEqual(caught.exception.code, ExitCode.USAGE)
        self.assertIn("x*", str(caught.exception))


class Reports(unittest.TestCase):
    OUTCOMES = [Outcome("build", Verdict.PASS, notes=["Linux 6.12"]),
                Outcome("umbra/log", Verdict.FAIL, "two\nlines \x1b[m", seconds=1.5),
                Outcome("umbra/fq-range/log", Verdict.SKIP, "not\noffered")]

    def test_ktap(self):
        out = io.StringIO()
        writer = ktap.Writer(out, 3)
        for outcome in self.OUTCOMES:
            writer.result(outcome)
        self.assertEqual(out.getvalue().splitlines(), [
            "KTAP version 1", "1..3", "# Linux 6.12", "ok 1 build", "# two", "# lines \x1b[m", "not ok 2 umbra/log",
            "ok 3 umbra/fq-range/log # SKIP not offered"])

    def test_junit(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "new" / "report.xml"
            junit.write(path, self.OUTCOMES)
            root = xml.parse(path).getroot()
        suites = {suite.get("name"): suite for suite in root}
        self.assertEqual(suites["umbra"].attrib | {"time": ""}, {
            "name": "umbra", "tests": "2", "errors": "0", "failures": "1", "skipped": "1", "time": ""})
        failure = suites["umbra"].find("testcase/failure")
        self.assertEqual(failure.get("message"), "two")
        self.assertNotIn("\x1b", failure.text)
        self.assertEqual(suites["build"].find("testcase/system-out").text, "Linux 6.12")

    def test_kunits_report_is_read(self):
        results = ktap.parse("KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: iova-fq\n    1..3\n"
                             "    ok 1 merge_sorts\n    # wrong\n    not ok 2 merge_hint\n"
                             "    ok 3 - split # SKIP no room\nnot ok 1 iova-fq\n[    1.5] ok 2 other\n")
        self.assertEqual(results, [
            ktap.Result(1, "merge_sorts", True, False), ktap.Result(1, "merge_hint", False, False),
            ktap.Result(1, "split", True, True), ktap.Result(0, "iova-fq", False, False),
            ktap.Result(0, "other", True, False)])


class Baselines(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.path = Path(scratch.name) / "baseline.json"
        baseline = Baseline.load(self.path, must_exist=False)
        baseline.update("umbra/fq-range", "hold", {"psi": 1060.0, "dsi": 0.0})
        baseline.save()
        self.baseline = Baseline.load(self.path, must_exist=True)

    def test_what_is_stored_is_accepted_within_the_tolerance(self):
        self.assertTrue(self.baseline.knows("umbra/fq-range", "hold"))
        for counts in ({"psi": 1060.0, "dsi": 0.0}, {"psi": 1110.0, "dsi": 5.0}):
            comparison = self.baseline.compare("umbra/fq-range", counts)
            self.assertEqual((comparison.worse, comparison.better), ([], []))

    def test_more_is_worse_and_fewer_is_noted(self):
        comparison = self.baseline.compare("umbra/fq-range", {"psi": 1000.0, "dsi": 5.1})
        self.assertEqual((len(comparison.worse), len(comparison.better)), (1, 1))
        self.assertIn("5.1 domain-selective", comparison.worse[0])

    def test_another_workload_or_cell_is_not_known(self):
        self.assertFalse(self.baseline.knows("umbra/fq-range", "another"))
        self.assertFalse(self.baseline.knows("umbra/strict", "hold"))
        self.baseline.update("umbra/strict", "another", {"psi": 2000.0})
        self.assertFalse(self.baseline.knows("umbra/fq-range", "hold"))

    def test_a_bad_file_is_refused(self):
        for text in ("{", "[]", '{"schema": 99}', '{"schema": 1}', '{"schema": 1, "runs": []}',
                     '{"schema": 1, "workload": "hold", "tolerance": {}, "counts": []}'):
            self.path.write_text(text)
            with self.assertRaises(UserError) as caught:
                Baseline.load(self.path, must_exist=True)
            self.assertEqual(caught.exception.code, ExitCode.USAGE)
        with self.assertRaises(UserError):
            Baseline.load(self.path.with_name("nothing"), must_exist=True)

    def test_ours_is_of_the_counted_workload(self):
        ours = Baseline.load(regress.BASELINE, must_exist=True)
        for viommu in regress.VIOMMUS:
            for policy in matrix.POLICIES:
                self.assertTrue(ours.knows(f"{viommu}/{policy}", matrix.COUNTED), f"{viommu}/{policy}")


def unmap(first, count=1):
    return Event(Kind.UNMAP, first, count)


def flush(first=0, count=0, hint=False):
    return Event(Kind.INVALIDATE, first, count, hint)


def release(first, count=1):
    return Event(Kind.RELEASE, first, count)


class Order(unittest.TestCase):
    def findings(self, *events: Event) -> tuple[int, int]:
        found = order.check(events)
        return found.early_count, found.hinted_count

    def test_release_after_a_flush_of_either_kind(self):
        self.assertEqual(self.findings(unmap(5), flush(5, 1, True), release(5)), (0, 0))
        self.assertEqual(self.findings(unmap(5), unmap(9), flush(), release(9), release(5)), (0, 0))
        self.assertEqual(self.findings(unmap(5), unmap(6), flush(4, 4, True), release(5), release(6)), (0, 0))
        # What was never unmapped, such as the padding of an allocation, needs no flush.
        self.assertEqual(self.findings(unmap(4, 3), flush(4, 4), release(4, 4), release(100)), (0, 0))

    def test_release_before_the_flush(self):
        self.assertEqual(self.findings(unmap(5), release(5), flush(5, 1)), (1, 0))
        self.assertEqual(self.findings(flush(5, 1), unmap(5), release(5)), (1, 0))

    def test_a_forgotten_range(self):
        self.assertEqual(self.findings(unmap(5), unmap(9), flush(5, 1), release(5), release(9)), (1, 0))
        self.assertEqual(self.findings(unmap(8, 4), flush(8, 2), release(8, 4)), (1, 0))

    def test_a_new_unmap_needs_a_new_flush(self):
        self.assertEqual(self.findings(unmap(5), flush(5, 1), release(5), unmap(5), release(5)), (1, 0))

    def test_a_wrong_hint(self):
        self.assertEqual(self.findings(unmap(512, 512), flush(512, 512, True), release(512, 512)), (0, 1))
        self.assertEqual(self.findings(unmap(512, 512), flush(512, 512, False), release(512, 512)), (0, 0))
        self.assertEqual(self.findings(unmap(512, 512), flush(), release(512, 512)), (0, 0))
        # No whole table lies in these.
        self.assertEqual(self.findings(unmap(513, 1022), flush(512, 1024, True), release(513, 1022)), (0, 0))
        self.assertEqual(self.findings(unmap(512, 511), flush(512, 512, True), release(512, 512)), (0, 0))

    def test_sentences_are_few(self):
        found = order.check([event for page in range(100) for event in (unmap(page), release(page))])
        self.assertEqual(found.early_count, 100)
        self.assertLess(len(found.early), 10)
        self.assertIn("IOVA 0x0, 1 pages", found.early[0])


class Traces(unittest.TestCase):
    HEAD = "# tracer: nop\n#\n# entries-in-buffer/entries-written: 4/4   #P:2\n#\n"

    @staticmethod
    def submit(*descriptors: tuple[int, int]) -> str:
        words = [word for first, second in descriptors for word in (first, second, 0, 0)]
        words += [0xDEAD] * (252 - len(words))  # what happens to lie behind
        parts = [words[0:64], words[64:128], words[128:192], words[192:252]]
        text = " ".join(f"w{i}={{{','.join(map(hex, part))}}}" for i, part in enumerate(parts))
        return ("     kworker/u8:1-37      [001] d..1.    12: submit: (qi_submit_sync+0x0/0x5c0) "
                f"count={len(descriptors)} {text}\n")

    def test_events(self):
        text = (self.HEAD +
                " umbra_dma_hold/0-88      [000] .....    10: unmap: IOMMU: iova=0x00000000fffe2000 - "
                "0x00000000fffe4000 size=8192 unmapped_size=8192\n" +
                self.submit((0x10032, 0xFFFE2041), (0x10022, 0), (0x10012, 0), (0x5, 0x1234), (0x20032, 0x40000)) +
                " umbra_dma_hold/0-88      [000] d....    13: release: (free_iova_fast+0x0/0x120) pfn=0xfffe2 "
                "pages=0x2\n")
        self.assertEqual(trace.parse(text), [
            Event(Kind.UNMAP, 0xFFFE2, 2), Event(Kind.INVALIDATE, 0xFFFE2, 2, True), Event(Kind.INVALIDATE),
            Event(Kind.INVALIDATE), Event(Kind.INVALIDATE, 0x40, 1), Event(Kind.RELEASE, 0xFFFE2, 2)])

    def test_an_overflow_is_told(self):
        for head in (self.HEAD.replace("4/4", "4/9"), ""):
            with self.assertRaises(Failed):
                trace.parse(head)

    def test_descriptors_that_cannot_be_read_are_told(self):
        with self.assertRaises(Failed):
            trace.parse(self.HEAD + " sh-1 [000] d..1. 5: submit: (x) count=2 w0={0x32,0x0,0x0,0x0} w1=(fault)\n")


class Promises(unittest.TestCase):
    N = matrix.OPERATIONS

    def broken(self, policy: str, psi: int, dsi: int, wait: int, gi: int = 0) -> list[str]:
        return matrix.broken_promises(policy, matrix.Sent(psi, dsi, gi, wait))

    def test_kept(self):
        n = self.N
        for policy, psi, dsi, wait in (("strict", 2 * n, 0, 2 * n), ("fq-domain", n, 5, n + 5),
                                       ("fq-single", n, 4, n + 4), ("fq-range", n + 70, 0, n + 8)):
            self.assertEqual(self.broken(policy, psi, dsi, wait), [], policy)

    def test_broken(self):
        n = self.N
        for policy, psi, dsi, wait, word in (
                ("strict", 2 * n, 1, 2 * n, "domain-selective"), ("strict", n + 9, 0, n + 9, "not every unmap"),
                ("fq-domain", n, 0, n, "no unmap"), ("fq-domain", 2 * n, 0, 2 * n, "not batched"),
                ("fq-range", n, 5, n + 5, "domain-selective"), ("fq-range", n, 0, n, "no unmap"),
                ("fq-range", 2 * n, 0, n + 20, "not merged"), ("fq-range", n + 70, 0, 2 * n, "not batched")):
            self.assertIn(word, " ".join(self.broken(policy, psi, dsi, wait)), policy)
        self.assertIn("not batched", " ".join(self.broken("fq-domain", n, n // 4, n + n // 4)))
        self.assertEqual(matrix.broken_promises("fq-domain", matrix.Sent(n, n // 4, 0, n + n // 4), timeouts=True), [])
        self.assertIn("global", self.broken("strict", 2 * n, 0, 2 * n, gi=1)[0])


class CommandLine(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def refuses(self, words: str, *arguments: str) -> None:
        with self.assertRaises((UserError, SystemExit)) as caught, contextlib.redirect_stderr(io.StringIO()) as said:
            regress.main(list(arguments))
        self.assertEqual(getattr(caught.exception, "code", None), ExitCode.USAGE)
        self.assertIn(words, f"{caught.exception} {said.getvalue()}")

    def test_usage_errors(self):
        self.refuses("cannot be read", "--kernel", str(self.folder / "none"))
        self.refuses("does not exist", "--patches", str(self.folder / "none"))
        self.refuses("no Linux source tree", "--kernel-source", str(self.folder))
        self.refuses("no such file", "--extra-patch", str(self.folder / "none"))
        self.refuses("goes with --kernel", "--modules", str(self.folder))
        self.refuses("no case matches", "--only", "nothing", "--list")
        self.refuses("more than 0", "--timeout", "0")
        self.refuses("--viommu", "--viommu", "other")
        self.refuses("--self-test", "--self-test", "--update-baseline")

    def listed(self, *arguments: str) -> list[str]:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.assertEqual(regress.main([*arguments, "--list"]), ExitCode.PASS)
        return out.getvalue().split()

    def test_cases_are_listed_without_building(self):
        names = self.listed()
        self.assertEqual(len(names), len(set(names)))
        for name in ("build", "kunit/iova-fq", "umbra/fq-range/counters", "qemu-intel/strict/verify",
                     "releases/umbra/fq-domain/after-flush"):
            self.assertIn(name, names)
        self.assertEqual(self.listed("--viommu", "umbra", "--only", "*/fq-range/log"), ["build", "umbra/fq-range/log"])

    def test_each_patch_is_a_case(self):
        self.assertEqual(len(self.listed("--each-patch")), len(patches.series(kernel_config.SERIES)))

    def test_each_broken_patch_is_expected_to_fail_cases_that_exist(self):
        names = self.listed("--self-test")
        on_disk = {f"self-test/{path.stem}" for path in selftest.BROKEN.glob("*.patch")}
        self.assertEqual(set(names), on_disk | {"self-test/sound"})
        every = self.listed()
        for cases in json.loads((selftest.BROKEN / "expected.json").read_text()).values():
            for case in cases:
                self.assertIn(case.replace("VIOMMU", "umbra"), every)


class Subjects(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        patch = mock.patch.dict("os.environ", UMBRA_CACHE=str(self.folder / "cache"))
        patch.start()
        self.addCleanup(patch.stop)

    def test_variants_of_a_series_share_a_folder(self):
        members = []
        for name in ("a", "b"):
            members.append(self.folder / f"{name}.patch")
            members[-1].write_text(name)
        with subject.composed_series(self.folder, members) as first:
            self.assertEqual([path.read_text() for path in patches.series(first)], ["a", "b"])
        with subject.composed_series(self.folder, members[1:]) as second:
            self.assertEqual([path.read_text() for path in patches.series(second)], ["b"])
        self.assertEqual(first, second)
        self.assertTrue(first.is_relative_to(cache.root()))

    def test_kunit_modules_are_told_by_their_dependencies(self):
        for name, content, expected in (("kunit", b"x", True), ("iova-fq-test", b"\0depends=kunit\0", True),
                                        ("two", b"\0depends=a,kunit,b\0", True), ("hold", b"\0depends=\0", False),
                                        ("near", b"\0depends=notkunit\0alias=kunit\0", False)):
            path = self.folder / f"{name}.ko"
            path.write_bytes(content)
            self.assertEqual(kernel_image.is_kunit_module(path), expected, name)


class Script(unittest.TestCase):
    def test_help_has_an_example(self):
        done = subprocess.run([project.TREE / "scripts" / "regress", "--help"], capture_output=True, text=True,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("scripts/regress --self-test", done.stdout)


if __name__ == "__main__":
    unittest.main()
