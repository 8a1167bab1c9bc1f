# SPDX-License-Identifier: GPL-2.0-or-later
"""run-vm before anything runs: what it refuses, what it would do to a device, what a dry run prints."""

import contextlib
import io
import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from umbra.building import products
from umbra.commands import run_vm
from umbra.errors import ExitCode, UserError
from umbra.vm import agent_commands, launch, vfio
from umbra.vm.config import GuestConfig
from umbra.vm.guest import AgentResult, fresh_directory

from options_case import OptionsCase


class Options(OptionsCase):
    def test_bad_ones_are_refused(self):
        for arguments in (["--nonsense"], ["--mem", "lots"], ["--mem", "0"], ["--smp", "0"],
                          ["--timeout", "-1"], ["--kernel", "/nonexistent"], ["--viommu", "amd"],
                          ["--shell", "--run", "device"], ["--vfio", "0000:00:10.0", "--testbed"],
                          ["--kernel", __file__]):
            self.refused(run_vm.parse, *arguments)

    def test_good_ones(self):
        options = run_vm.parse(["--mem", "2G", "--", "-trace", "vtd_*"])
        self.assertEqual(options.extra, ["-trace", "vtd_*"])
        self.assertEqual(launch.bytes_of("2G"), 2 << 30)
        self.assertEqual(launch.bytes_of("512"), 512 << 20)


class Writing(unittest.TestCase):
    def test_commands_that_overwrite_the_disk(self):
        for command in ("workload verify", "workload verify size=4m", "workload verify phase=write",
                        "workload fio rw=randrw", "workload fio seconds=2 rw=write"):
            self.assertTrue(agent_commands.writes(command), command)
        for command in ("device", "check", "workload verify phase=read seed=7", "workload fio",
                        "workload fio rw=randread", "workload hold pages_mapped=256", "workload dma-map",
                        "policy strict", "workload", ""):
            self.assertFalse(agent_commands.writes(command), command)

    def test_words_are_those_of_the_guests_shell(self):
        for command in ("workload  verify", "\tworkload\tverify ", "workload fio rw=read rw=write",
                        "workload fio rw=write bs=x\u2003rw=read bs=4k", "workload verify seed=1\u00a0phase=read"):
            self.assertTrue(agent_commands.writes(command), command)
        self.assertFalse(agent_commands.writes("workload fio rw=write rw=read"))

    def test_a_command_is_one_line(self):
        for command in ("ping\nworkload verify", "workload verify seed=1\x0bphase=read", "", "  ", "a\x7f"):
            with self.subTest(command), self.assertRaises(UserError) as caught:
                run_vm.parse(["--testbed", "--run", command])
            self.assertEqual(caught.exception.code, ExitCode.USAGE)

    def test_a_real_device_is_not_written_to_unasked(self):
        self.assertFalse(any(map(agent_commands.writes, agent_commands.read_only_check(2))))
        for extra in ([], ["--run", "device"]):
            run_vm.parse(["--vfio", "0000:3b:00.0", *extra])
        with self.assertRaises(UserError) as caught:
            run_vm.parse(["--vfio", "0000:3b:00.0", "--run", "workload verify size=4m"])
        self.assertEqual(caught.exception.code, ExitCode.USAGE)
        self.assertIn("--destroy-data", caught.exception.remedy)
        run_vm.parse(["--vfio", "0000:3b:00.0", "--run", "workload verify size=4m", "--destroy-data"])
        run_vm.parse(["--testbed", "--run", "workload verify size=4m"])

    def test_each_device_is_checked_where_the_guest_finds_it(self):
        self.assertEqual(agent_commands.read_only_check(2),
                         ["select 0000:01:00.0", "check", "select 0000:02:00.0", "check", "dmesg-check"])


class MemoryLock(unittest.TestCase):
    EVERYTHING = 0x1ffffffffff
    GIBIBYTE = 1 << 30

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.process = Path(folder.name)

    def may_lock(self, capabilities: int, user: int = 0, uid_map: str = "0 0 4294967295") -> bool:
        (self.process / "status").write_text(f"Name:\tpython3\nUid:\t{user}\t{user}\t{user}\t{user}\n"
                                             f"CapEff:\t{capabilities:016x}\n")
        (self.process / "uid_map").write_text(f"         {uid_map}\n")
        return vfio.may_lock_any_memory(self.process)

    def test_only_root_with_the_capability_needs_no_limit(self):
        self.assertTrue(self.may_lock(self.EVERYTHING))
        self.assertFalse(self.may_lock(self.EVERYTHING & ~(1 << 14)))
        self.assertFalse(self.may_lock(self.EVERYTHING, user=1000))
        self.assertFalse(self.may_lock(self.EVERYTHING, uid_map="0 100000 65536"))
        self.assertFalse(vfio.may_lock_any_memory(self.process / "nothing"))

    def limits(self, soft: int, hard: int, root: bool = False):
        """Replaces this process's limits; returns the mock that is told of new ones."""
        self.enterContext(mock.patch.object(vfio.resource, "getrlimit", lambda _: (soft, hard)))
        self.enterContext(mock.patch.object(vfio, "may_lock_any_memory", lambda: root))

        def refuse_more(_which, limits):
            if hard != -1 and limits[1] > hard:
                raise ValueError("not allowed to raise maximum limit")
        return self.enterContext(mock.patch.object(vfio.resource, "setrlimit", side_effect=refuse_more))

    def test_root_runs_with_the_usual_eight_mebibytes(self):
        raised = self.limits(8 << 20, 8 << 20, root=True)
        vfio.check_memory_lock(self.GIBIBYTE)
        raised.assert_not_called()

    def test_an_ordinary_user_is_told_both_numbers(self):
        self.limits(8 << 20, 8 << 20)
        with self.assertRaises(UserError) as caught:
            vfio.check_memory_lock(self.GIBIBYTE)
        self.assertIn("allows 8 MiB", caught.exception.message)
        self.assertIn("needs 1088 MiB", caught.exception.message)

    def test_memory_counts_once_a_device(self):
        raised = self.limits(8 << 20, -1)
        vfio.check_memory_lock(self.GIBIBYTE, devices=2)
        raised.assert_called_once_with(vfio.resource.RLIMIT_MEMLOCK, (2 * (self.GIBIBYTE + (64 << 20)), -1))

    def test_a_limit_that_suffices_stays(self):
        raised = self.limits(2 * self.GIBIBYTE, 2 * self.GIBIBYTE)
        vfio.check_memory_lock(self.GIBIBYTE)
        raised.assert_not_called()


class Devices(unittest.TestCase):
    """What is refused before any device is unbound."""

    def refused(self, words: str, *arguments: str) -> None:
        with self.assertRaises(UserError) as caught:
            run_vm.parse(list(arguments))
        self.assertEqual(caught.exception.code, ExitCode.USAGE)
        self.assertIn(words, caught.exception.message)
        self.assertNotIn("\n", str(caught.exception))

    def test_more_devices_than_slots(self):
        self.refused("5 devices", *(word for slot in range(5) for word in ("--vfio", f"0000:3b:0{slot}.0")))

    def test_a_device_that_is_named_twice(self):
        self.refused("0000:3b:00.0 twice", "--vfio", "0000:3b:00.0", "--vfio", "0000:3B:00.0")

    def test_options_without_an_effect(self):
        for option in (("--devices", "2"), ("--host-append", "quiet")):
            self.refused(option[0], "--vfio", "0000:3b:00.0", *option)

    def test_upper_case_is_accepted(self):
        self.assertEqual(run_vm.parse(["--vfio", "0000:3B:00.0"]).vfio, ["0000:3b:00.0"])


class Numbers(unittest.TestCase):
    def test_endless_and_absurd_ones_are_refused(self):
        for words in (["--timeout", "inf"], ["--timeout", "nan"], ["--mem", "99999999999G"]):
            with self.subTest(words), self.assertRaises(UserError) as caught:
                run_vm.parse(["--testbed", *words])
            self.assertEqual(caught.exception.code, ExitCode.USAGE)


class Addresses(unittest.TestCase):
    def test_what_is_no_address_is_told_so_before_it_is_looked_up(self):
        for address in ("/", "", ".."):
            with self.subTest(address), self.assertRaises(UserError) as caught:
                launch.plan(run_vm.parse(["--vfio", address]))
            self.assertIn("is not a PCI address", caught.exception.message)


class InUse(unittest.TestCase):
    """A sysfs of folders and links, with a disk, a partition and a network card."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.sysfs, self.proc = Path(folder.name) / "sys", Path(folder.name) / "proc"
        for name in ("class/block", "class/net", "bus/pci/devices"):
            (self.sysfs / name).mkdir(parents=True)
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "net").mkdir()
        self.disk = self.device("0000:3b:00.0")
        self.entry(self.disk, "block", "nvme0n1", "nvme/nvme0")
        self.entry(self.disk, "block", "nvme0n1p2", "nvme/nvme0/nvme0n1")
        self.card = self.device("0000:3c:00.0")
        self.entry(self.card, "net", "eth7", "net")
        self.told(mounts="/dev/sda1 / ext4 rw 0 0\n", swaps="Filename Type\n", route="Iface\tDestination\n")

    def device(self, address: str) -> Path:
        path = self.sysfs / "devices/pci0000:3a" / address
        path.mkdir(parents=True)
        (self.sysfs / "bus/pci/devices" / address).symlink_to(path)
        return path

    def entry(self, device: Path, kind: str, name: str, below: str) -> None:
        (device / below / name / "holders").mkdir(parents=True)
        (self.sysfs / "class" / kind / name).symlink_to(device / below / name)

    def told(self, **files: str) -> None:
        for name, text in files.items():
            {"mounts": self.proc / "self/mounts", "swaps": self.proc / "swaps",
             "route": self.proc / "net/route"}[name].write_text(text)

    def refused(self, address: str, words: str) -> None:
        with self.assertRaises(UserError) as caught:
            vfio.refuse_if_in_use(address, self.sysfs, self.proc)
        self.assertIn(words, caught.exception.message)
        self.assertIn("--force", caught.exception.remedy)

    def test_a_device_that_nobody_uses_is_taken(self):
        for address in ("0000:3b:00.0", "0000:3c:00.0", "0000:3d:00.0"):
            vfio.refuse_if_in_use(address, self.sysfs, self.proc)

    def test_a_mounted_disk(self):
        self.told(mounts="/dev/nvme0n1p2 /home ext4 rw 0 0\n")
        self.refused("0000:3b:00.0", "/dev/nvme0n1p2 is mounted at /home")
        vfio.refuse_if_in_use("0000:3c:00.0", self.sysfs, self.proc)

    def test_swap_and_volumes(self):
        self.told(swaps="Filename Type\n/dev/nvme0n1 partition 1 0 -2\n")
        self.refused("0000:3b:00.0", "/dev/nvme0n1 is swap")
        self.told(swaps="Filename Type\n")
        (self.sysfs / "class/block/nvme0n1/holders/dm-0").mkdir()
        self.refused("0000:3b:00.0", "part of dm-0")

    def test_a_disk_behind_native_multipath(self):
        self.entry(self.card, "block", "nvme1c4n1", "nvme/nvme1")
        self.told(mounts="/dev/nvme1n1 /srv xfs rw 0 0\n")
        self.refused("0000:3c:00.0", "/dev/nvme1n1 is mounted at /srv")

    def test_the_network_and_the_screen(self):
        self.told(route="Iface\tDestination\neth7\t00000000\t0102000A\n")
        self.refused("0000:3c:00.0", "eth7 has the default route")
        self.told(route="Iface\tDestination\n")
        (self.card / "net/eth7/master").mkdir()
        self.refused("0000:3c:00.0", "bridge or bond")
        (self.disk / "boot_vga").write_text("1\n")
        self.refused("0000:3b:00.0", "screen")


class Files(unittest.TestCase):
    def test_a_link_to_an_empty_folder_is_a_place_for_logs(self):
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "target"
            target.mkdir()
            link = Path(folder) / "link"
            link.symlink_to(target)
            self.assertEqual(fresh_directory(link), target.resolve())
            self.assertTrue(link.is_dir())

    def test_relative_paths_are_those_of_the_caller(self):
        with tempfile.TemporaryDirectory() as folder:
            before = os.getcwd()
            self.addCleanup(os.chdir, before)
            os.chdir(folder)
            Path("initrd").touch()
            options = run_vm.parse(["--initrd", "initrd"])
            os.chdir(before)
            self.assertEqual(options.initrd, Path(folder).resolve() / "initrd")


class FakeGuest:
    """Answers every command; those in `failing` with status 1."""
    failing: tuple[str, ...] = ()
    done: list[str] = []

    def __init__(self, *_arguments):
        FakeGuest.done = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def wait_ready(self):
        return {"kernel": "6.12", "cpus": 1}

    def command(self, line):
        self.done.append(line)
        return AgentResult(line, int(line in self.failing), None, {})

    def power_off(self):
        self.done.append("off")


class Runs(unittest.TestCase):
    def run_with(self, options: launch.LaunchOptions, failing: tuple[str, ...] = ()) -> ExitCode:
        config = GuestConfig(passthrough=options.vfio or ["0000:00:10.0"])
        with mock.patch.object(launch, "Guest", FakeGuest), mock.patch.object(FakeGuest, "failing", failing):
            return launch.run(options, mock.Mock(), config, lambda _: None, lambda _: None, None)

    def test_the_testbeds_disk_is_written_to(self):
        self.assertEqual(self.run_with(launch.LaunchOptions(testbed=True)), ExitCode.PASS)
        self.assertEqual(FakeGuest.done, ["device", "workload verify size=4m", "dmesg-check", "off"])

    def test_a_real_device_is_only_checked(self):
        self.run_with(launch.LaunchOptions(vfio=["0000:3b:00.0"]))
        self.assertEqual(FakeGuest.done, ["select 0000:01:00.0", "check", "dmesg-check", "off"])

    def test_the_policy_comes_first_and_a_failure_is_the_exit_code(self):
        options = launch.LaunchOptions(policy="fq-domain", run=["device", "workload hold"])
        self.assertEqual(self.run_with(options, failing=("device",)), ExitCode.GUEST_FAILED)
        self.assertEqual(FakeGuest.done, ["policy fq-domain", "device", "workload hold", "off"])


class DryRun(unittest.TestCase):
    def dry_run(self, *arguments: str) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            self.assertEqual(run_vm.main(["--testbed", "--dry-run", *arguments]), ExitCode.PASS)
        return out.getvalue()

    def test_it_builds_nothing_and_deletes_nothing(self):
        nothing = dict.fromkeys(products.built())
        with tempfile.TemporaryDirectory() as folder, \
                mock.patch.object(products, "built", lambda: nothing), \
                mock.patch.object(launch, "build", side_effect=AssertionError("it built something")):
            text = self.dry_run("--viommu", "umbra", "--out", folder)
            self.assertEqual(list(Path(folder).iterdir()), [])
        for part in ("QEMU_BIN", "KERNEL_STOCK"):
            self.assertIn(f"not-built/{part}", text)
        self.assertIn("vfio-pci", text)


if __name__ == "__main__":
    unittest.main()
