# SPDX-License-Identifier: GPL-2.0-or-later
"""Command lines, ports, archives and reports: all that needs no VM."""

import contextlib
import io
import json
import os
import re
import socket
import tempfile
import threading
import time
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from umbra import table
from umbra.building import cpio
from umbra.building.kernel_image import check_bzimage
from umbra.commands import measure, run_vm
from umbra.errors import ExitCode, UserError
from umbra.measuring import plan, results, session
from umbra.vm import launch
from umbra.vm.config import CONFIGS, VIOMMUS, GuestConfig, arguments_of
from umbra.vm.guest import AgentResult, Guest
from umbra.vm.host import LocalHost
from umbra.vm.ports import NotJson, Port, PortClosed, PortTimeout
from umbra.vm.process import tail


class CommandLine(unittest.TestCase):
    def words(self, **settings) -> list[str]:
        config = GuestConfig(kernel=Path("bzImage"), **settings)
        return config.command_line("qemu")

    def test_viommu_is_read_before_the_devices_behind_it(self):
        for viommu in VIOMMUS:
            words = self.words(viommu=viommu, passthrough=["0000:00:10.0"])
            files = [words[i + 1] for i, word in enumerate(words) if word == "-readconfig"]
            self.assertEqual(files, [f"viommu-{viommu}.cfg", "guest.cfg"])
            self.assertLess(words.index("guest.cfg"), words.index("-device"))

    def test_every_file_that_the_command_line_names_is_provided(self):
        for viommu in VIOMMUS:
            config = GuestConfig(kernel=Path("k"), initrd=Path("i"), plugin=Path("p.so"), viommu=viommu)
            provided = set(config.files())
            words = config.command_line("qemu", lambda name: f"@{name}@")
            named = set(re.findall("@(.*?)@", " ".join(words)))
            self.assertEqual(named, provided)
            for name, path in config.files().items():
                if name.endswith(".cfg"):
                    self.assertTrue(path.is_file(), path)

    def test_iommufd(self):
        words = self.words(viommu="none", passthrough=["0000:00:10.0", "0000:00:11.0"], iommufd=True)
        self.assertEqual(words.count("-object"), 2)
        self.assertIn("vfio-pci,id=passthrough1,bus=slot1,host=0000:00:11.0,iommufd=iommufd1", words)

    def test_devices_behind_a_bridge(self):
        words = self.words(viommu="none", passthrough=["0000:00:10.0", "0000:00:11.0"],
                           bridges=["pcie-pci-bridge,id=b"], places=["bus=b,addr=1", "bus=b,addr=2"])
        devices = [words[i + 1] for i, word in enumerate(words) if word == "-device"]
        self.assertEqual(devices, ["pcie-pci-bridge,id=b", "vfio-pci,id=passthrough0,bus=b,addr=1,host=0000:00:10.0",
                                   "vfio-pci,id=passthrough1,bus=b,addr=2,host=0000:00:11.0"])

    def test_each_device_has_a_place_or_none_has(self):
        with self.assertRaises(UserError):
            GuestConfig(passthrough=["x", "y"], places=["bus=b"], viommu="none").check()

    def test_extra_arguments_come_last(self):
        self.assertEqual(self.words(viommu="none", extra=["-m", "4G"])[-2:], ["-m", "4G"])

    def test_slots_exist_for_as_many_devices_as_are_allowed(self):
        text = (CONFIGS / "guest.cfg").read_text()
        with self.assertRaises(UserError):
            GuestConfig(passthrough=["x"] * 5, viommu="none").check()
        for slot in range(4):
            self.assertIn(f'[device "slot{slot}"]', text)

    def test_arguments_files_hold_no_comment(self):
        for name in ("guest", "guest-kvm", "guest-tcg", "guest-nested", "testbed-host"):
            self.assertTrue(arguments_of(name))
            self.assertNotIn("#", " ".join(arguments_of(name)))

    def test_umbra_without_plugin_is_refused(self):
        with self.assertRaises(UserError) as caught:
            GuestConfig(viommu="umbra").check()
        self.assertEqual(caught.exception.code, ExitCode.ENVIRONMENT)


class Options(unittest.TestCase):
    def refused(self, parse, *arguments: str) -> None:
        with self.assertRaises((UserError, SystemExit)) as caught:
            parse(list(arguments))
        code = getattr(caught.exception, "code", None)
        self.assertEqual(code, ExitCode.USAGE, arguments)

    def setUp(self):
        # argparse reports on standard error.
        self.enterContext(contextlib.redirect_stderr(io.StringIO()))

    def test_run_vm(self):
        for arguments in (["--nonsense"], ["--mem", "lots"], ["--mem", "0"], ["--smp", "0"],
                          ["--timeout", "-1"], ["--kernel", "/nonexistent"], ["--viommu", "amd"],
                          ["--shell", "--run", "device"], ["--vfio", "0000:00:10.0", "--testbed"],
                          ["--kernel", __file__]):
            self.refused(run_vm.parse, *arguments)
        options = run_vm.parse(["--mem", "2G", "--", "-trace", "vtd_*"])
        self.assertEqual(options.extra, ["-trace", "vtd_*"])
        self.assertEqual(launch.bytes_of("2G"), 2 << 30)
        self.assertEqual(launch.bytes_of("512"), 512 << 20)

    def test_bzimage_magic(self):
        with tempfile.NamedTemporaryFile() as image:
            image.write(b"\0" * 0x1FE + b"\x55\xaa\0\0HdrS")
            image.flush()
            check_bzimage(Path(image.name))
            image.truncate(0x204)
            with self.assertRaises(UserError):
                check_bzimage(Path(image.name))

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


class Ports(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.port = Port.open_fifos(Path(folder.name) / "guest.port")
        self.addCleanup(self.port.close)
        self.peer_in = os.open(f"{folder.name}/guest.port.in", os.O_RDWR)
        self.peer_out = os.open(f"{folder.name}/guest.port.out", os.O_RDWR)
        self.addCleanup(os.close, self.peer_in)
        self.addCleanup(os.close, self.peer_out)

    def soon(self) -> float:
        return time.monotonic() + 20

    def test_lines_arrive_whole_however_they_are_cut(self):
        def send():
            for piece in (b'{"event":', b'"ready"}\n{"a"', b":2}\n"):
                os.write(self.peer_out, piece)
        sender = threading.Thread(target=send)
        sender.start()
        self.assertEqual(self.port.read_object(self.soon()), {"event": "ready"})
        self.assertEqual(self.port.read_object(self.soon()), {"a": 2})
        sender.join()

    def test_a_line_that_is_no_object_is_shown_where_its_fault_is(self):
        for line, shown in ((b"noise", "'noise'"), (b"[1]", "'[1]'"), (b"", "''"), (b"\xff{}", "'\\xff{}'"),
                            (b"[" * 60000, "'" + "[" * 200 + "'…"),
                            (b'{"a":"' + b"x" * 500 + b'"quote","b":1}', "…'" + "x" * 99 + '"quote","b":1}\'')):
            with self.subTest(shown):
                os.write(self.peer_out, line + b"\n")
                with self.assertRaises(NotJson) as caught:
                    self.port.read_object(self.soon())
                self.assertEqual(str(caught.exception), shown)
        os.write(self.peer_out, b"{}\n")
        self.assertEqual(self.port.read_object(self.soon()), {})

    def test_deadline(self):
        with self.assertRaises(PortTimeout):
            self.port.read_line(time.monotonic() + 0.01)

    def test_endless_line_is_given_up(self):
        stop = threading.Event()

        def flood():
            os.set_blocking(self.peer_out, False)
            while not stop.is_set():
                try:
                    os.write(self.peer_out, b"x" * 65536)
                except BlockingIOError:
                    time.sleep(0.001)
        sender = threading.Thread(target=flood)
        sender.start()
        try:
            with self.assertRaises(PortClosed):
                self.port.read_line(time.monotonic() + 60)
        finally:
            stop.set()
            sender.join()

    def test_write(self):
        self.port.write(b"device\n", self.soon())
        self.assertEqual(os.read(self.peer_in, 100), b"device\n")

    def test_write_to_a_peer_that_does_not_read(self):
        with self.assertRaises(PortTimeout):
            self.port.write(b"x" * (1 << 20), time.monotonic() + 0.05)


class Sockets(unittest.TestCase):
    def test_a_folder_with_a_long_name(self):
        with tempfile.TemporaryDirectory() as top, socket.socket(socket.AF_UNIX) as server:
            folder = Path(top) / ("x" * 200)
            folder.mkdir()
            here = os.open(folder, os.O_PATH | os.O_DIRECTORY)
            self.addCleanup(os.close, here)
            server.bind(f"/proc/self/fd/{here}/a.sock")
            server.listen()
            port = Port.connect(folder / "a.sock", time.monotonic() + 20)
            self.addCleanup(port.close)
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"{}\n")
                self.assertEqual(port.read_object(time.monotonic() + 20), {})

    def test_no_socket_at_the_deadline(self):
        with tempfile.TemporaryDirectory() as folder, self.assertRaises(PortTimeout):
            Port.connect(Path(folder) / "a.sock", time.monotonic())


class Archive(unittest.TestCase):
    @staticmethod
    def archive(start: int = 0) -> bytes:
        out = io.BytesIO()
        writer = cpio.Writer(out, start)
        writer.directory("/umbra")
        writer.file("/umbra/a", b"hello")
        writer.symlink("/umbra/b", "a")
        writer.char_device("/dev/console", 5, 1)
        writer.finish()
        return out.getvalue()

    def test_same_input_same_bytes(self):
        self.assertEqual(self.archive(), self.archive())

    def test_starts_on_a_boundary_behind_another_image(self):
        for start in range(8):
            self.assertTrue(self.archive(start)[-start % 4:].startswith(b"070701"))

    def test_other_tools_read_it(self):
        import subprocess
        done = subprocess.run(["cpio", "-tv"], input=self.archive(), capture_output=True, check=True)
        listing = done.stdout.decode()
        self.assertIn("umbra/b -> a", listing)
        self.assertIn("5,   1", listing)


class Panic(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        host = LocalHost(Path(folder.name), Path("qemu"))
        self.guest = Guest(host, GuestConfig(viommu="none"), limit=1)
        self.guest.deadline = time.monotonic() + 20
        self.guest.qmp = mock.Mock()

    def print(self, text: str) -> None:
        with open(self.guest.console_log, "a") as console:
            console.write(text)

    def test_one_that_was_asked_for_is_none(self):
        self.assertFalse(self.guest.panicked())

        def panic(command: str) -> None:
            self.assertEqual(command, "crash")
            self.print("Kernel panic - not syncing: sysrq\n[0.0] Linux version\n")
        with mock.patch.object(self.guest, "command", panic), \
                mock.patch.object(self.guest, "wait_ready", lambda: {"event": "ready"}):
            self.assertEqual(self.guest.crash(), {"event": "ready"})
        self.assertFalse(self.guest.panicked())
        self.print("[1.0] Kernel panic - not syncing: a real one\n")
        self.assertTrue(self.guest.panicked())


class GuestAgent(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        host = LocalHost(Path(folder.name), Path("qemu"))
        host.start(GuestConfig(viommu="none"), 0)
        self.guest = Guest(host, GuestConfig(viommu="none"), limit=600)
        self.addCleanup(host.close)
        self.guest.deadline = time.monotonic() + 600
        self.guest._agent = host.port("guest", 0)
        peer = os.open(f"{folder.name}/guest.port.out", os.O_RDWR)
        self.addCleanup(os.close, peer)
        self.say = lambda line: os.write(peer, line + b"\n")

    def test_a_line_that_is_no_json_ends_the_wait_at_once(self):
        for wait, where in ((self.guest.wait_ready, "boot"), (lambda: self.guest.command("exec dmesg"), "exec dmesg")):
            with self.subTest(where):
                self.say(b'{"event":"result","data":"a"bare quote"}')
                with self.assertRaises(UserError) as caught:
                    wait()
                self.assertEqual(caught.exception.code, ExitCode.GUEST_FAILED)
                self.assertIn(where, str(caught.exception))
                self.assertIn('"a"bare quote"}', str(caught.exception))


class Tail(unittest.TestCase):
    def test_control_characters_do_not_reach_the_terminal(self):
        with tempfile.NamedTemporaryFile() as log:
            log.write(b"\x1b[2Jgone\r\nlast line \xff\n")
            log.flush()
            text = tail(Path(log.name))
        self.assertNotIn("\x1b", text)
        self.assertIn("last line", text)

    def test_missing_log(self):
        self.assertEqual(tail(Path("/nonexistent")), "")


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

    def test_colour_is_for_terminals_that_have_it_and_users_who_want_it(self):
        terminal = mock.Mock(isatty=lambda: True)
        for variables, coloured in (({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False),
                                    ({"TERM": "xterm", "NO_COLOR": "1"}, False),
                                    ({"TERM": "xterm", "NO_COLOR": ""}, True)):
            with self.subTest(variables), mock.patch.dict(os.environ, variables, clear=True):
                self.assertEqual(table.has_colour(terminal), coloured)
        self.assertFalse(table.has_colour(io.StringIO()))

    def test_plain_table_has_no_escapes(self):
        text = table.render(["a", "b"], [["x", "1"], ["x", "22"]], colour=False)
        self.assertNotIn("\033", text)
        self.assertEqual(text.splitlines()[1], "x   1")


if __name__ == "__main__":
    unittest.main()
