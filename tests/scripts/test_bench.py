# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark's command line, and how results become figures, verdicts, tables and pages. Nothing is measured."""

import contextlib
import io
import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from umbra.bench import aims, device, emulated, engine, publish, report, testbed
from umbra.bench.figures import Spread, duration, significant, timed, times
from umbra.bench.run import LEVELS, SCHEMA, chosen_levels, levels_with_work, load
from umbra.commands import bench
from umbra.errors import ExitCode, UserError

TREE = Path(__file__).resolve().parents[2]
# A build folder with the programs, named by tests/bench/CMakeLists.txt.
BUILD = os.environ.get("UMBRA_BENCH_BUILD")


def summary(median: float, low: float | None = None, high: float | None = None) -> dict:
    return {"samples": 5, "minimum": median / 2, "lower_quartile": low or median, "median": median,
            "upper_quartile": high or median, "maximum": median * 2}


def device_entry(case="dsi-unchanged", pages=65536, devices=1, sharing="one", layout="fragmented", peer=5e6, own=2e4,
                 memcmp: float | None = 1e4, mirror=549_000, by_one_device: float | None = None) -> dict:
    def side(time: float, mirror_bytes: int) -> dict:
        return {"calls": 0.0, "floor_ns": 400.0, "table_bytes": 536_576, "anonymous_bytes": 600_000,
                "mirror_bytes": mirror_bytes, "time_ns": summary(time)}
    entry = {"case": case, "pages": pages, "devices": devices, "sharing": sharing, "layout": layout,
             "intel-iommu": side(peer, 0), "umbra-viommu": side(own, mirror), "ratio": summary(peer / own)}
    if memcmp is not None:
        entry |= {"memcmp_ns": summary(memcmp), "umbra_by_memcmp": summary(own / memcmp)}
    if by_one_device is not None:
        entry["umbra_by_one_device"] = summary(by_one_device)
    return entry


def device_result(*entries: dict) -> dict:
    return {"format": device.FORMAT, "results": list(entries)}


def testbed_run(viommu: str, workload="drain-256", unmaps=2048, operations=2048, domain=8) -> dict:
    return {"viommu": viommu, "policy": "fq-domain", "backend": "type1", "workload": workload,
            "guest": {"map_ns": {"p50": 100_000}, "unmap_ns": {"p50": 800}}, "counted_operations": operations,
            "invalidations": {"iotlb_page": 2048, "iotlb_domain": domain, "iotlb_global": 0},
            "shadow": {"host_map_calls": 2048, "host_unmap_calls": unmaps},
            "host_iommu": {"iotlb_global": 0, "iotlb_domain": 0, "iotlb_page": 2048}}


def emulated_turns(*iops: tuple[float, float], depth=1) -> list[dict]:
    """What the peer's guest and Umbra's read a second, turn by turn."""
    sides = (emulated.PEER, emulated.OWN)
    return [{"viommu": viommu, "depth": depth, "turn": turn, "iops": value, "cpu_seconds_per_read": 1 / value}
            for turn, pair in enumerate(iops) for viommu, value in zip(sides, pair, strict=True)]


def engine_entry(name: str, time: float, family=0, instance=0, **more) -> dict:
    return {"run_name": name, "run_type": "iteration", "cpu_time": time, "time_unit": "us", "family_index": family,
            "per_family_instance_index": instance} | more


def whole_result(**levels) -> dict:
    return {"schema": SCHEMA,
            "machine": {"cpu": "a CPU", "cpus": 2, "memory_bytes": 24 << 30, "kernel": "6.12"},
            "versions": {"qemu": "10.0.13", "umbra": "abc"},
            "conditions": {"started": "2026-01-01 12:00", "minutes": 3.2, "load_before": 0.1, "load_after": 1.5},
            "levels": levels}


class Figures(unittest.TestCase):
    def test_three_digits_in_the_unit_that_fits(self):
        for value, text in ((0, "0 ns"), (1.234, "1.23 ns"), (999.4, "999 ns"), (999.9, "1.00 µs"),
                            (12_345, "12.3 µs"), (5_445_000, "5.45 ms"), (2.5e9, "2.50 s")):
            self.assertEqual(duration(value), text)

    def test_large_numbers_are_whole(self):
        self.assertEqual([significant(value) for value in (0, 9.996, 99.96, 123.4, 12345.6)],
                         ["0", "10.0", "100", "123", "12,346"])

    def test_quartiles(self):
        spread = Spread.of([1.0, 2.0, 3.0, 4.0, 5.0])
        self.assertEqual((spread.median, spread.low, spread.high), (3.0, 2.0, 4.0))
        self.assertAlmostEqual(spread.relative, 1 / 3)
        self.assertEqual(Spread.of([7.0]).relative, 0)

    def test_what_was_not_measured_is_a_dash(self):
        self.assertEqual(timed(None), "-")
        self.assertEqual(times(2), "2.00×")


class CommandLine(unittest.TestCase):
    def refused(self, words: str, *arguments: str):
        with self.assertRaises(UserError) as raised:
            bench.parse(list(arguments))
        self.assertEqual(raised.exception.code, ExitCode.USAGE)
        self.assertIn(words, str(raised.exception))

    def test_levels(self):
        self.assertEqual(chosen_levels(bench.parse([])), list(LEVELS))
        self.assertEqual(chosen_levels(bench.parse(["--quick"])), ["device", "engine"])
        # In the order in which they run, whatever the order on the command line.
        self.assertEqual(chosen_levels(bench.parse(["--level", "testbed", "--level", "device"])),
                         ["device", "testbed"])

    def test_refused(self):
        self.refused("1 to 100", "--repeat", "0")
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "file").touch()
            self.refused("not an empty folder", "--out", folder)
            self.refused("not an empty folder", "--out", f"{folder}/file")

    def test_an_unknown_level_is_one_sentence(self):
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), self.assertRaises(SystemExit) as ended:
            bench.parse(["--level", "none"])
        self.assertEqual(ended.exception.code, ExitCode.USAGE)
        self.assertEqual(len(errors.getvalue().splitlines()), 1)

    def test_load_refuses_what_is_no_result(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "result.json"
            for text, words in ((None, "No such file"), ("{", "no JSON"), ('{"schema": 0}', "not a result"),
                                ('{"schema": 1, "runs": [], "skipped": []}', "not a result"),
                                ('{"schema": 1, "levels": {"device": {}}}', "damaged")):
                if text is not None:
                    path.write_text(text)
                with self.assertRaises(UserError) as raised:
                    load(path)
                self.assertEqual(raised.exception.code, ExitCode.USAGE)
                self.assertIn(words, str(raised.exception))

    def test_words_for_the_programs(self):
        self.assertIn("4096,65536", device.arguments(quick=True, cases=[], repeat=1))
        words = device.arguments(quick=False, cases=["map-*", "dsi-unchanged"], repeat=2)
        self.assertEqual(words[words.index("--case") + 1], "map-*,dsi-unchanged")
        self.assertEqual(words[words.index("--turns") + 1], str(2 * device.TURNS))
        self.assertIn("--benchmark_filter=^map.*(/|$)|^a\\.b(/|$)",
                      engine.arguments(quick=True, patterns=["map*", "a.b"], repeat=1))


class Only(unittest.TestCase):
    def levels(self, *arguments: str) -> list[str]:
        return levels_with_work(bench.parse(list(arguments)))

    def test_levels_at_which_something_has_the_name(self):
        self.assertEqual(self.levels(), list(LEVELS))
        self.assertEqual(self.levels("--only", "map-512-psi", "--only", "BM_Walk"), ["device", "engine"])
        self.assertEqual(self.levels("--only", "d*", "--only", "emulated-*"), list(LEVELS))
        self.assertEqual(self.levels("--quick", "--only", "d*"), ["device", "engine"])
        # With all its arguments, with the first of them, and by a pattern across them.
        for pattern in ("BM_TranslateHit/pages:1/level:1", "BM_TranslateHit/pages:1", "*level:1"):
            self.assertEqual(self.levels("--only", pattern), ["engine"])

    def test_a_name_of_nothing_is_refused_before_anything_is_built(self):
        for name, *others in (("nothing",), ("",), ("map-512",), ("BM_Walk/levels:9",), ("BM_Walk/levels",),
                              ("nothing", "--only", "map-512-psi"), ("drain-256", "--quick"),
                              ("BM_Walk", "--level", "device"), ("dsi-unchanged", "--level", "testbed")):
            with (self.subTest(name=name, others=others),
                  mock.patch.object(bench.Bench, "build", side_effect=AssertionError("built"))):
                with self.assertRaises(UserError) as raised:
                    bench.main(["--only", name, *others])
                self.assertEqual(raised.exception.code, ExitCode.USAGE)
                self.assertIn(f"--only {name}: ", str(raised.exception))

    def test_the_command_says_so_in_one_line(self):
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder) / "cache"
            # Offline, so that it fails in another way if it comes to building.
            done = subprocess.run([TREE / "scripts/bench", "--offline", "--only", "nothing"], capture_output=True,
                                  text=True, stdin=subprocess.DEVNULL, timeout=100, check=False,
                                  env=os.environ | {"UMBRA_CACHE": str(cache), "QEMU_SOURCE": ""})
            self.assertFalse(cache.exists())
        self.assertEqual((done.returncode, done.stdout), (ExitCode.USAGE, ""), done.stderr)
        self.assertEqual(done.stderr, "bench: --only nothing: no level of device, engine, testbed, emulated has such a "
                                      "name; bench --list tells the names.\n")

    def test_names_are_listed_without_a_build(self):
        output = io.StringIO()
        with contextlib.redirect_stdout(output), \
                mock.patch.object(bench.Bench, "build", side_effect=AssertionError("built")):
            self.assertEqual(bench.main(["--list"]), ExitCode.PASS)
        lines = output.getvalue().splitlines()
        for line in ("device   map-1-psi", "engine   BM_Walk/levels:3", "engine   BM_RemapInterrupt",
                     "testbed  drain-256"):
            self.assertIn(line, lines)
        self.assertEqual(len(set(lines)), len(lines))


class NamesOfTheSource(unittest.TestCase):
    """Names that the scripts know are those of the C++ source. Arguments are left to NamesOfThePrograms."""

    def test_device(self):
        source = (TREE / "tests/bench/device/cases.cc").read_text()
        table = re.search(r"make_cases\(\) \{\n(.*?)\n\}", source, re.DOTALL)
        self.assertIsNotNone(table, "The table of cases looks unlike what this test can read.")
        self.assertEqual(re.findall(r'"([^"]*)"', table[1]), list(device.CASES),
                         "CASES in scripts/lib/umbra/bench/device.py is to be what tests/bench/device/cases.cc has.")

    def test_engine(self):
        registered = []
        for path in sorted((TREE / "tests/bench/engine").glob("*.cc")):
            source = path.read_text()
            found = re.findall(r"^BENCHMARK(?:\((\w+)\)|_CAPTURE\((\w+), (\w+))", source, re.MULTILINE)
            self.assertEqual((len(found), source.count("RegisterBenchmark")), (source.count("BENCHMARK"), 0),
                             f"{path.name} registers benchmarks in ways that this test cannot read.")
            registered += [plain or f"{family}/{case}" for plain, family, case in found]
        self.assertNotEqual(registered, [])

        def belongs(name: str, family: str) -> bool:
            return f"{name}/".startswith(f"{family}/")

        unknown = [family for family in registered if not any(belongs(name, family) for name in engine.BENCHMARKS)]
        gone = [name for name in engine.BENCHMARKS if not any(belongs(name, family) for family in registered)]
        self.assertEqual((unknown, gone), ([], []),
                         "_REGISTERED in scripts/lib/umbra/bench/engine.py is to be what tests/bench/engine registers.")


@unittest.skipUnless(BUILD, "no UMBRA_BENCH_BUILD: CTest runs these by themselves (tests/bench/CMakeLists.txt)")
class NamesOfThePrograms(unittest.TestCase):
    """Names that the scripts know are those that the built programs list."""

    def listed(self, program: str, option: str) -> list[str]:
        words = [str(Path(BUILD or "", "tests/bench", program)), option]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return done.stdout.split()

    def test_device(self):
        self.assertEqual(self.listed(f"device/{device.TARGET}", "--list"), list(device.CASES))

    def test_engine(self):
        listed = [name for target in engine.TARGETS
                  for name in self.listed(f"engine/{target}", "--benchmark_list_tests=true")]
        self.assertCountEqual(listed, engine.BENCHMARKS)


class Device(unittest.TestCase):
    def test_rows(self):
        row, = device.rows(device_result(device_entry()))
        self.assertEqual((row.peer.median, row.own.median, row.ratio.median), (5e6, 2e4, 250))
        self.assertEqual(row.by_memcmp.median, 2)

    def test_another_format_is_refused(self):
        with self.assertRaises(KeyError):
            device.rows({"format": "umbra-device-bench-1", "results": []})

    def test_tables(self):
        rows = device.rows(device_result(
            device_entry(case="map-1-psi", memcmp=None, peer=400, own=200), device_entry(pages=256),
            device_entry(case="map-1-psi", memcmp=None, pages=256, peer=400, own=200)))
        lines = device.table_rows(rows)
        self.assertEqual([(line[0], line[3]) for line in lines],
                         [("map-1-psi", "256"), ("map-1-psi", "65,536"), ("dsi-unchanged", "256")])
        self.assertEqual(lines[0][5:9], ["400 ns ±0%", "200 ns ±0%", "2.00× ±0%", "-"])
        self.assertTrue(all(len(line) == len(device.HEADER) for line in lines))
        limits = device.limit_rows(rows)
        self.assertEqual([(line[0], line[2], line[6], line[7]) for line in limits],
                         [("map-1-psi", "65,536", "400 ns", "0.50×")])
        memory = device.memory_rows(rows)
        self.assertEqual([line[0] for line in memory], ["256", "65,536"])
        self.assertTrue(all(len(line) == len(device.MEMORY_HEADER) for line in memory))


class Engine(unittest.TestCase):
    RESULT = {"benchmarks": [
        *(engine_entry("domain_sync_nothing_changed/pages:4096/fragmented:1", time,
                       **{"mirror/tables": 1.1, "bytes/page": 9.0}) for time in (3.0, 1.0, 2.0)),
        engine_entry("memcmp_of_leaf_tables/pages:4096/fragmented:1", 1.0),
        engine_entry("compare_one_table/avx512", 0, error_occurred=True),
        engine_entry("compare_one_table/sse2", 0.5, bytes_per_second=2.0**30),
        {"run_name": "compare_one_table/sse2", "run_type": "aggregate", "cpu_time": 9, "time_unit": "us"}]}

    def test_repetitions_are_one_row_and_errors_none(self):
        rows = {row.name: row for row in engine.rows(self.RESULT)}
        self.assertEqual(rows["domain_sync_nothing_changed/pages:4096/fragmented:1"].time.median, 2000)
        self.assertEqual(rows["compare_one_table/sse2"].time.median, 500)
        self.assertNotIn("compare_one_table/avx512", rows)

    def test_tables(self):
        rows = engine.rows(self.RESULT)
        line, = engine.compare_rows(rows)
        self.assertEqual((line[0], line[1], line[4]), ("fragmented", "4,096", "2.00×"))
        self.assertEqual(engine.table_rows(rows),
                         [["compare_one_table/sse2", "500 ns ±0%", "bytes_per_second 1.0 GiB/s"]])


class Testbed(unittest.TestCase):
    def test_counts_by_operation(self):
        row, = testbed.rows({"runs": [testbed_run("umbra", unmaps=64), testbed_run("qemu-intel")]})
        self.assertEqual((row.own.unmaps_per_drain, row.peer.unmaps_per_drain, row.drain_ratio), (8, 256, 32))
        self.assertEqual(row.own.flushes_per_operation, 1)
        self.assertAlmostEqual(row.own.calls_per_invalidation, (2048 + 64) / 2056)

    def test_a_workload_without_its_peer_has_no_row(self):
        self.assertEqual(testbed.rows({"runs": [testbed_run("umbra")]}), [])

    def test_what_cannot_be_counted_is_a_dash(self):
        runs = [testbed_run("umbra"), testbed_run("qemu-intel")]
        for run in runs:
            run["shadow"]["host_unmap_calls"] = None
            run["host_iommu"]["iotlb_page"] = None
        row, = testbed.rows({"runs": runs})
        self.assertIsNone(row.drain_ratio)
        for line in testbed.table_rows([row]):
            self.assertEqual(len(line), len(testbed.HEADER))
            self.assertEqual((line[7], line[9], line[10]), ("-", "-", "-"))

    def test_cells_are_side_by_side(self):
        for quick in (True, False):
            cells = testbed.cells(quick)
            for peer, own in zip(cells[::2], cells[1::2], strict=True):
                self.assertEqual((peer.viommu, own.viommu), ("qemu-intel", "umbra"))
                self.assertEqual((peer.policy, peer.backend), (own.policy, own.backend))

    def test_workloads_by_pattern(self):
        self.assertEqual([work.name for work in testbed.chosen_workloads(["drain-*-scattered"])],
                         ["drain-256-scattered"])
        self.assertEqual(len(testbed.chosen_workloads([])), len(testbed.workloads()))


class Aims(unittest.TestCase):
    def verdicts(self, *entries: dict, runs=(), turns=()) -> dict[str, bool]:
        rows = device.rows(device_result(*entries))
        found = aims.verdicts(rows, testbed.rows({"runs": list(runs)}), emulated.rows({"runs": list(turns)}))
        return {verdict.what: verdict.met for verdict in found}

    def test_ratio_and_memcmp(self):
        name = "dsi-unchanged, 65,536 pages, fragmented"
        found = self.verdicts(device_entry(peer=4e6, own=2e4, memcmp=1e4))
        self.assertTrue(found[name])
        self.assertTrue(found[f"{name}, in memcmps of the leaf tables"])
        found = self.verdicts(device_entry(peer=4e6, own=2.1e4, memcmp=1e4))
        self.assertFalse(found[name])
        self.assertFalse(found[f"{name}, in memcmps of the leaf tables"])

    def test_sizes_without_an_aim_have_no_verdict_but_the_mirrors(self):
        self.assertEqual(list(self.verdicts(device_entry(pages=256))), ["mirror memory, 256 pages, fragmented"])

    def test_devices_in_one_domain(self):
        name = "dsi-unchanged, 65,536 pages, fragmented, 16 devices in one domain, in costs of one device"
        self.assertTrue(self.verdicts(device_entry(devices=16, by_one_device=1.2))[name])
        self.assertFalse(self.verdicts(device_entry(devices=16, by_one_device=1.3))[name])
        self.assertNotIn(name, self.verdicts(device_entry(), device_entry(devices=16, sharing="own")))

    def test_mirror(self):
        name = "mirror memory, 65,536 pages, fragmented"
        limit = int(536_576 * 1.05) + (1 << 20)
        self.assertTrue(self.verdicts(device_entry(mirror=limit))[name])
        self.assertFalse(self.verdicts(device_entry(mirror=limit + 1))[name])

    def test_drain(self):
        name = "drain-256, type1: the peer's VFIO unmaps for each of Umbra's"
        for unmaps, met in ((512, True), (513, False)):
            runs = [testbed_run("umbra", unmaps=unmaps), testbed_run("qemu-intel")]
            self.assertEqual(self.verdicts(runs=runs)[name], met)

    def test_emulated_reads_are_as_many_as_the_peers(self):
        name = "emulated-randread-4k-qd1: reads a second beside the peer's"
        noisy = [(1000, 900), (1000, 950), (1000, 990), (1000, 1100)]
        for turns, met in ((noisy, True), ([(1000, 900), (1100, 1000), (900, 850)], False), ([(1000, 1001)], True)):
            self.assertEqual(self.verdicts(turns=emulated_turns(*turns))[name], met)


class Emulated(unittest.TestCase):
    def test_ratios_are_those_of_neighbours_in_time(self):
        # A machine that gets slower: each turn has the same ratio.
        [row] = emulated.rows({"runs": emulated_turns((1000, 1100), (500, 550), (100, 110))})
        self.assertEqual((row.workload, row.peer_iops.median, row.own_iops.median),
                         ("emulated-randread-4k-qd1", 500, 550))
        for spread in (row.iops_ratio, row.cpu_ratio):
            self.assertAlmostEqual(spread.median, 1.1)
            self.assertAlmostEqual(spread.relative, 0.0)

    def test_a_turn_that_one_of_them_lacks_does_not_count(self):
        runs = emulated_turns((1000, 1100), (500, 550))
        [row] = emulated.rows({"runs": runs[:3]})
        self.assertEqual((row.peer_iops.median, row.own_iops.median), (1000, 1100))
        self.assertEqual(emulated.rows({"runs": runs[:1]}), [])

    def test_each_depth_is_a_row(self):
        found = emulated.rows({"runs": emulated_turns((1000, 1100)) + emulated_turns((9000, 9900), depth=16)})
        self.assertEqual([cells[0] for cells in emulated.table_rows(found)], list(emulated.WORKLOADS))


class Report(unittest.TestCase):
    def test_only_levels_that_ran_have_tables(self):
        result = whole_result(device=device_result(device_entry()))
        titles = [title for title, *_ in report.sections(result)]
        self.assertEqual(titles, ["Aims", "Device level: one device, and how far from the limit",
                                  "Device level: time of one operation", "Device level: memory"])
        self.assertEqual(report.sections(whole_result()), [])

    def test_long_tables_are_folded_in_markdown_only(self):
        entries = [device_entry(pages=256 + i) for i in range(61)]
        result = whole_result(device=device_result(*entries))
        # Aims, times and memory have a row for each.
        self.assertEqual(report.render(result, markdown=True).count("<details>"), 3)
        self.assertNotIn("<details>", report.render(result, markdown=False))

    def test_the_result_survives_json(self):
        result = whole_result(device=device_result(device_entry()), engine=Engine.RESULT,
                              testbed={"runs": [testbed_run("umbra"), testbed_run("qemu-intel")]})
        for markdown in (False, True):
            self.assertEqual(report.render(json.loads(json.dumps(result)), markdown), report.render(result, markdown))
        self.assertIn("### Testbed", report.render(result, markdown=True))
        self.assertIn("load average 0.1 before", report.render(result, markdown=False))


class Publish(unittest.TestCase):
    PAGE = f"# Title\n\n{publish.BEGIN}\nold\n{publish.END}\nafter\n"

    def test_only_the_part_between_the_marks_changes(self):
        page = publish.between_marks(self.PAGE, "new")
        self.assertEqual(page, f"# Title\n\n{publish.BEGIN}\n\nnew\n\n{publish.END}\nafter\n")
        self.assertEqual(publish.between_marks(page, "new"), page)

    def test_marks_must_be_there(self):
        for page in ("", publish.BEGIN, f"{publish.END}{publish.BEGIN}", self.PAGE * 2):
            with self.assertRaises(ValueError):
                publish.between_marks(page, "new")

    def test_the_page_in_the_tree_has_them(self):
        publish.between_marks((publish.BENCH / "README.md").read_text(), "new")

    def test_plots_are_replaced(self):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            (folder / "plots").mkdir()
            (folder / "plots/old.svg").touch()
            (folder / "README.md").write_text(self.PAGE)
            (folder / "new.svg").write_text("<svg/>")
            publish.publish(whole_result(), folder, [("new.svg", "What it shows")], bench=folder)
            self.assertEqual([path.name for path in (folder / "plots").iterdir()], ["new.svg"])
            self.assertIn("![What it shows](plots/new.svg)", (folder / "README.md").read_text())


if __name__ == "__main__":
    unittest.main()
