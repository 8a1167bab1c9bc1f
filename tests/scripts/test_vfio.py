# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks before a device is passed through, on a sysfs made of plain files."""

import os
import signal
import tempfile
import time
import unittest
from pathlib import Path

from umbra.errors import ExitCode, UserError
from umbra.vm import vfio


class FakeSysfs:
    def __init__(self, root: Path):
        self.root = root
        (root / "bus/pci/devices").mkdir(parents=True)
        (root / "bus/pci/drivers").mkdir(parents=True)

    def device(self, address: str, group: str | None = "5", driver: str | None = None,
               pci_class: str = "0x010802") -> None:
        path = self.root / "bus/pci/devices" / address
        path.mkdir()
        (path / "class").write_text(pci_class + "\n")
        if driver:
            folder = self.root / "bus/pci/drivers" / driver
            folder.mkdir(exist_ok=True)
            (path / "driver").symlink_to(folder)
        if group:
            members = self.root / "kernel/iommu_groups" / group / "devices"
            members.mkdir(parents=True, exist_ok=True)
            (members / address).symlink_to(path)
            (path / "iommu_group").symlink_to(members.parent)


class CheckDevice(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.sysfs = FakeSysfs(Path(folder.name))

    def refusal(self, address: str) -> UserError:
        with self.assertRaises(UserError) as caught:
            vfio.check_device(address, self.sysfs.root)
        self.assertTrue(caught.exception.remedy, "a refusal names its remedy")
        return caught.exception

    def test_a_domain_may_have_five_digits(self):
        self.sysfs.device("10000:e1:00.0", driver="nvme")
        self.assertEqual(vfio.check_device("10000:e1:00.0", self.sysfs.root).address, "10000:e1:00.0")

    def test_device_alone_in_its_group_is_taken(self):
        self.sysfs.device("0000:3b:00.0", driver="nvme")
        self.assertEqual(vfio.check_device("0000:3b:00.0", self.sysfs.root).driver(), "nvme")

    def test_not_an_address(self):
        for address in ("3b:00.0", "0000:3b:00.8", "0000:3b:20.0", "../../etc", ""):
            self.assertEqual(self.refusal(address).code, ExitCode.USAGE, address)

    def test_missing_device(self):
        self.assertIn("no PCI device", self.refusal("0000:3b:00.0").message)

    def test_iommu_off(self):
        self.sysfs.device("0000:3b:00.0", group=None)
        error = self.refusal("0000:3b:00.0")
        self.assertEqual(error.code, ExitCode.ENVIRONMENT)
        self.assertIn("IOMMU is off", error.message)

    def test_bridge(self):
        self.sysfs.device("0000:00:1c.0", pci_class="0x060400")
        self.assertIn("bridge", self.refusal("0000:00:1c.0").message)

    def test_group_member_in_use_by_host_driver(self):
        self.sysfs.device("0000:3b:00.0")
        self.sysfs.device("0000:3b:00.1", driver="snd_hda_intel")
        error = self.refusal("0000:3b:00.0")
        self.assertIn("0000:3b:00.1", error.message)
        self.assertIn("snd_hda_intel", error.message)

    def test_harmless_group_members(self):
        self.sysfs.device("0000:3b:00.0")
        self.sysfs.device("0000:3b:00.1", driver="vfio-pci")
        self.sysfs.device("0000:3a:00.0", driver="pcieport", pci_class="0x060400")
        self.sysfs.device("0000:3b:00.2")
        vfio.check_device("0000:3b:00.0", self.sysfs.root)

    def test_member_of_another_group_does_not_matter(self):
        self.sysfs.device("0000:3b:00.0")
        self.sysfs.device("0000:3c:00.0", group="6", driver="e1000e")
        vfio.check_device("0000:3b:00.0", self.sysfs.root)


class FakeDevice(vfio.PciDevice):
    """Keeps its driver in a file, so that every process sees it. Drivers other than its own and
    vfio-pci do not take it."""

    def __init__(self, folder: Path, driver: str, takes_vfio: bool = True):
        self.address = "0000:3b:00.0"
        self.path = folder
        self._takes_vfio = takes_vfio
        (folder / "bound").write_text(driver)
        (folder / "driver_override").touch()

    def driver(self) -> str | None:
        return (self.path / "bound").read_text() or None

    def bind(self, driver: str | None) -> None:
        if driver != "vfio-pci" or self._takes_vfio:
            (self.path / "bound").write_text(driver or "")


class GivingBack(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.device = FakeDevice(self.folder, "nvme")

    def bind(self, device: FakeDevice) -> vfio.Binding:
        return vfio.Binding([device], nodes=self.folder)

    def test_at_the_end(self):
        binding = self.bind(self.device)
        self.assertEqual(self.device.driver(), "vfio-pci")
        binding.close()
        self.assertEqual(self.device.driver(), "nvme")

    def test_after_a_crash_of_the_launcher(self):
        launcher = os.fork()
        if launcher == 0:
            self.bind(self.device)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(launcher, 0)
        deadline = time.monotonic() + 30
        while self.device.driver() != "nvme" and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertEqual(self.device.driver(), "nvme")

    def test_after_a_refusal(self):
        device = FakeDevice(self.folder, "nvme", takes_vfio=False)
        with self.assertRaises(UserError) as caught:
            self.bind(device)
        self.assertIn("did not take", caught.exception.message)
        self.assertEqual(device.driver(), "nvme")

    def test_one_that_was_vfios_before_stays(self):
        device = FakeDevice(self.folder, "vfio-pci")
        self.bind(device).close()
        self.assertEqual(device.driver(), "vfio-pci")

    def test_without_vfio_in_the_kernel(self):
        with self.assertRaises(UserError) as caught:
            vfio.Binding([self.device], nodes=self.folder / "missing")
        self.assertIn("vfio-pci", caught.exception.remedy)


if __name__ == "__main__":
    unittest.main()
