# SPDX-License-Identifier: GPL-2.0-or-later
"""Handing PCI devices of this machine to a guest: checks, binding to vfio-pci, and giving back.

A guardian process gives the devices back when the launcher ends, by whatever cause: it waits for
the end of a pipe that only the launcher holds open.
"""

import os
import re
import resource
import sys
import time
from pathlib import Path

from umbra.errors import ExitCode, UserError
from umbra.vm import in_use

_ADDRESS = re.compile(r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-1][0-9a-f]\.[0-7]$")
_HARMLESS = {"vfio-pci", "pci-stub", "pcieport"}
_MEBIBYTE = 1024 * 1024
_CAP_IPC_LOCK = 14  # linux/capability.h


class PciDevice:
    """One function, as sysfs shows it."""

    def __init__(self, address: str, sysfs: Path = Path("/sys")):
        self.address = address
        self._sysfs = sysfs
        self.path = sysfs / "bus/pci/devices" / address

    def driver(self) -> str | None:
        link = self.path / "driver"
        return os.path.basename(os.readlink(link)) if link.is_symlink() else None

    def group(self) -> str | None:
        link = self.path / "iommu_group"
        return os.path.basename(os.readlink(link)) if link.is_symlink() else None

    def group_members(self) -> list["PciDevice"]:
        devices = self._sysfs / "kernel/iommu_groups" / str(self.group()) / "devices"
        return [PciDevice(name, self._sysfs) for name in sorted(os.listdir(devices))]

    def is_bridge(self) -> bool:
        return (self.path / "class").read_text().startswith("0x0604")

    def bind(self, driver: str | None) -> None:
        """Binds to `driver`; None leaves the device without one."""
        if self.driver() is not None:
            (self.path / "driver/unbind").write_text(self.address)
        (self.path / "driver_override").write_text(driver or "\n")
        if driver is not None:
            (self._sysfs / "bus/pci/drivers_probe").write_text(self.address)


def check_device(address: str, sysfs: Path = Path("/sys")) -> PciDevice:
    """Refuses, with cause and remedy, a device that cannot be passed through."""
    if not _ADDRESS.match(address):
        raise UserError(ExitCode.USAGE, f"'{address}' is not a PCI address.",
                        "Write it in full, as lspci -D does: 0000:3b:00.0.")
    device = PciDevice(address, sysfs)
    if not device.path.exists():
        raise UserError(ExitCode.ENVIRONMENT, f"There is no PCI device {address}.",
                        "lspci -D lists those that exist.")
    if device.group() is None:
        raise UserError(ExitCode.ENVIRONMENT, f"{address} is in no IOMMU group: the IOMMU is off.",
                        "Turn VT-d or AMD-Vi on in the firmware and boot with intel_iommu=on or "
                        "amd_iommu=on; without an IOMMU use --testbed.")
    if device.is_bridge():
        raise UserError(ExitCode.USAGE, f"{address} is a PCI bridge.", "Pass an endpoint through.")
    for other in device.group_members():
        driver = other.driver()
        if other.address != address and driver and driver not in _HARMLESS:
            raise UserError(ExitCode.ENVIRONMENT,
                            f"{other.address} is in the same IOMMU group ({device.group()}) as "
                            f"{address} and is used by the host driver {driver}.",
                            f"Unbind it first, or bind it to vfio-pci as well: "
                            f"echo {other.address} > /sys/bus/pci/devices/{other.address}"
                            "/driver/unbind")
    return device


def refuse_if_in_use(address: str, sysfs: Path = Path("/sys"), proc: Path = Path("/proc")) -> None:
    """Refuses a device that this machine needs itself. check_device() took the address before."""
    use = in_use.use_of(sysfs / "bus/pci/devices" / address, sysfs, proc)
    if use is not None:
        raise UserError(ExitCode.ENVIRONMENT, f"This machine uses {address}: {use}.",
                        "Free it first, or add --force to take it away all the same.")


def may_lock_any_memory(process: Path = Path("/proc/self")) -> bool:
    """True for root that has CAP_IPC_LOCK: then the kernel counts no pinned page against RLIMIT_MEMLOCK."""
    try:
        # The root of a container's user namespace is an ordinary user to VFIO.
        if (process / "uid_map").read_text().split() != ["0", "0", str(2 ** 32 - 1)]:
            return False
        fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
        # Other users cannot hand the capability on to QEMU.
        effective_user = int(fields["Uid"].split()[1])
        return effective_user == 0 and bool(int(fields["CapEff"], 16) >> _CAP_IPC_LOCK & 1)
    except (OSError, KeyError, ValueError):
        return False


def check_memory_lock(guest_bytes: int, devices: int = 1) -> None:
    """VFIO pins the guest's memory, and counts it once a device. Raises the soft limit as far as needed; refuses if
    it cannot."""
    if may_lock_any_memory():
        return
    needed = devices * (guest_bytes + 64 * _MEBIBYTE)
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK,
                           (needed, hard if hard == resource.RLIM_INFINITY else max(hard, needed)))
    except (ValueError, OSError):
        raise UserError(ExitCode.ENVIRONMENT,
                        f"RLIMIT_MEMLOCK allows {hard // _MEBIBYTE} MiB, the guest's pinned memory "
                        f"needs {needed // _MEBIBYTE} MiB.",
                        f"{'Give root CAP_IPC_LOCK' if os.geteuid() == 0 else 'Run as root'}, raise it "
                        "(ulimit -l unlimited), or give the guest less memory (--mem).") from None


class Binding:
    """Devices bound to vfio-pci for as long as the object lives and is not closed."""

    def __init__(self, devices: list[PciDevice], nodes: Path = Path("/dev/vfio")):
        if not nodes.is_dir():
            raise UserError(ExitCode.ENVIRONMENT, "The kernel's VFIO driver is not there (/dev/vfio).",
                            "modprobe vfio-pci, as root.")
        self._before = [(device, device.driver()) for device in devices]
        self._guard()
        for device in devices:
            if device.driver() != "vfio-pci":
                self._take(device)

    def _take(self, device: PciDevice) -> None:
        try:
            device.bind("vfio-pci")
        except PermissionError:
            self.close()
            raise UserError(ExitCode.ENVIRONMENT, f"Binding {device.address} to vfio-pci needs root.",
                            "Run with sudo, or bind it beforehand.") from None
        except OSError as error:
            self.close()
            raise UserError(ExitCode.ENVIRONMENT,
                            f"{device.address} could not be bound to vfio-pci: {error.strerror}.",
                            "dmesg says why; modprobe vfio-pci if the driver is not loaded.") from None
        if device.driver() != "vfio-pci":
            self.close()
            raise UserError(ExitCode.ENVIRONMENT, f"vfio-pci did not take {device.address}.",
                            "dmesg says why; modprobe vfio-pci if the driver is not loaded.")

    def _guard(self) -> None:
        read_end, self._alive = os.pipe()
        self._guardian = os.fork()
        if self._guardian != 0:
            os.close(read_end)
            return
        # In the guardian. It leaves the launcher's session, so that Ctrl-C does not reach it, and its
        # streams, so that nobody who reads them waits for it.
        os.setsid()
        os.close(self._alive)
        with open(os.devnull, "r+b") as nothing:
            for stream in (0, 1, 2):
                os.dup2(nothing.fileno(), stream)
        os.read(read_end, 1)
        status = 0
        for device, driver in self._before:
            if not _give_back(device, driver):
                status = 1
        os._exit(status)

    def close(self) -> None:
        """Gives the devices back and waits until that is done."""
        if self._alive < 0:
            return
        os.close(self._alive)
        self._alive = -1
        _, status = os.waitpid(self._guardian, 0)
        if status != 0:
            names = ", ".join(device.address for device, _ in self._before)
            print(f"warning: not every device went back to its host driver ({names}); see dmesg",
                  file=sys.stderr)


def _give_back(device: PciDevice, driver: str | None) -> bool:
    # QEMU may still be closing the device when the launcher was killed.
    for _ in range(50):
        try:
            if driver == "vfio-pci" or device.driver() == driver:
                return True
            device.bind(driver)
            (device.path / "driver_override").write_text("\n")
            return device.driver() == driver
        except OSError:
            time.sleep(0.2)
    return False
