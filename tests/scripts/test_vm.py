# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's command line, its agent and its console: all that needs no VM."""

import os
import re
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from umbra.errors import ExitCode, UserError
from umbra.vm.config import CONFIGS, VIOMMUS, GuestConfig, arguments_of, kvm_runs_guests
from umbra.vm.guest import Guest
from umbra.vm.host import LocalHost
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


class Kvm(unittest.TestCase):
    """Whether guests run on KVM: by itself where it can, and emulated unasked only where there is none."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.device, self.cpuinfo = Path(folder.name) / "kvm", Path(folder.name) / "cpuinfo"
        self.device.touch()
        self.cpuinfo.write_text("flags\t\t: fpu vmx sse\n")
        self.access = self.enterContext(mock.patch("os.access", return_value=True))
        self.enterContext(mock.patch.dict(os.environ))
        os.environ.pop("UMBRA_EMULATE", None)

    def runs(self) -> bool:
        return kvm_runs_guests(self.device, self.cpuinfo)

    def test_a_cpu_that_virtualizes(self):
        self.assertTrue(self.runs())
        self.cpuinfo.write_text("flags\t\t: fpu sse\n")
        self.assertFalse(self.runs())

    def test_a_machine_without_the_device_emulates(self):
        self.device.unlink()
        self.assertFalse(self.runs())

    def test_a_user_who_may_not_use_it_is_told_how_to_get_it(self):
        self.access.return_value = False
        with self.assertRaises(UserError) as caught:
            self.runs()
        self.assertEqual(caught.exception.code, ExitCode.ENVIRONMENT)
        self.assertIn("group kvm", caught.exception.remedy)
        self.assertIn("UMBRA_EMULATE=1", caught.exception.remedy)

    def test_emulation_when_it_is_asked_for(self):
        os.environ["UMBRA_EMULATE"] = "1"
        self.assertFalse(self.runs())
        self.access.return_value = False
        self.assertFalse(self.runs())


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


if __name__ == "__main__":
    unittest.main()
