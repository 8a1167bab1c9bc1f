# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux behind Umbra with emulated devices: boots, data, faults, reboots, hotplug."""

import hashlib
import random
import time
import unittest
from typing import TYPE_CHECKING

from umbra.vm.agent_commands import guest_address, read_only_check
from umbra.vm.ports import Port
from umbra.vm.viommu import Viommu

from network_peer import GUEST, STATION, NetworkPeer
from vm_case import LIMIT, VmCase

DISK_BYTES = 64 * 1024 * 1024
BLOCK_TEST_BYTES = 1024 * 1024
PINGS = 3  # of the guest
ECHOES = 100  # with random bytes, sent back by the guest


class LinuxCase(VmCase):
    def emulated(self, *, nvme: bool = True, **settings):
        """A guest behind Umbra, not yet started. Disks are files in its folder."""
        return self.direct(viommu="umbra", nvme=nvme, **settings)

    @staticmethod
    def make_disk(guest, name: str) -> None:
        with open(guest.host.rundir / name, "wb") as disk:
            disk.truncate(DISK_BYTES)

    def shell(self, guest, script: str) -> str:
        return self.do(guest, f"exec {script}")["stdout"]

    @staticmethod
    def statistics(guest) -> dict:
        return Viommu(guest.qmp).statistics()


# What a mixin is mixed into, for the type checker.
if TYPE_CHECKING:
    _Case = LinuxCase
else:
    _Case = object


class Boots(_Case):
    """Mixed into one test case a number of CPUs."""
    CPUS = 0

    def boot(self, words: str, remapping: bool) -> None:
        guest = self.emulated(
            cpus=self.CPUS, append=words, viommu_options=f"intremap={'on' if remapping else 'off'}",
            extra=["-blockdev", "driver=raw,node-name=block,file.driver=file,file.filename=block.raw",
                   "-device", "virtio-blk-pci,drive=block,iommu_platform=on,disable-legacy=on,bus=pcie.0,addr=6",
                   "-netdev", NetworkPeer.netdev("net"),
                   "-device", "e1000e,netdev=net,bus=pcie.0,addr=7,romfile="])
        self.make_disk(guest, "block.raw")
        with NetworkPeer(guest.host.rundir) as peer, guest:
            ready = guest.wait_ready()
            self.assertEqual(ready["cpus"], self.CPUS)
            self.check_mode(guest, ready, words, remapping)
            self.do(guest, "workload verify size=1m")
            self.check_block_device(guest)
            self.check_network(guest, peer)
            self.do(guest, "dmesg-check")
            self.check_counts(self.statistics(guest), passed_through="iommu=pt" in words)
            guest.power_off()

    def check_mode(self, guest, ready: dict, words: str, remapping: bool) -> None:
        self.assertEqual(ready["device"]["iommu"], "dmar0")
        # A unit in caching mode makes Linux strict, whatever it was asked for.
        self.assertEqual(ready["device"]["group_type"], "identity" if "iommu=pt" in words else "DMA")
        log = self.shell(guest, "dmesg")
        self.assertEqual(remapping, "Enabled IRQ remapping in x2apic mode" in log, log)

    def check_block_device(self, guest) -> None:
        count = BLOCK_TEST_BYTES // 65536
        sums = self.shell(guest, f"dd if=/dev/urandom of=/tmp/data bs=64k count={count} && "
                          "dd if=/tmp/data of=/dev/vda bs=64k && sync && echo 3 >/proc/sys/vm/drop_caches && "
                          f"dd if=/dev/vda of=/tmp/back bs=64k count={count} && md5sum /tmp/data /tmp/back")
        first, second = (line.split()[0] for line in sums.splitlines())
        self.assertEqual(first, second)
        with open(guest.host.rundir / "block.raw", "rb") as disk:
            self.assertEqual(first, hashlib.md5(disk.read(BLOCK_TEST_BYTES)).hexdigest())

    def check_network(self, guest, peer: NetworkPeer) -> None:
        self.shell(guest, f"interface=$(ls /sys/bus/pci/devices/0000:00:07.0/net) && "
                   f"ip address add {GUEST}/24 dev $interface && ip link set $interface up && "
                   f"(ping -c {PINGS} -i 0.2 -s 1400 -p a5 {STATION} >/tmp/ping 2>&1; echo $? >/tmp/ping.status) &")
        peer.serve(requests=PINGS, limit=LIMIT)
        peer.echo(seed=self.CPUS, count=ECHOES, size=1400, limit=LIMIT)
        report = self.shell(guest, "while [ ! -s /tmp/ping.status ]; do sleep 0.1; done; "
                            "cat /tmp/ping /tmp/ping.status")
        self.assertIn(f"{PINGS} packets transmitted, {PINGS} packets received", report)
        self.assertTrue(report.endswith("\n0\n"), report)
        counts = self.icmp_counts(self.shell(guest, "cat /proc/net/snmp"))
        self.assertEqual(counts["InCsumErrors"], 0)
        self.assertEqual(counts["InEchoReps"], PINGS)
        self.assertEqual(counts["InEchos"], ECHOES)

    @staticmethod
    def icmp_counts(text: str) -> dict:
        names, values = (line.split()[1:] for line in text.splitlines() if line.startswith("Icmp:"))
        return dict(zip(names, map(int, values)))

    def check_counts(self, counts: dict, passed_through: bool) -> None:
        self.assertEqual(counts["faults"]["recorded"], 0)
        self.assertEqual(set(counts["queue"]["errors"].values()), {0})
        self.assertGreater(counts["queue"]["wait-descriptors"], 0)
        translated = sum(counts["invalidations"]["queue"][kind] for kind in ("iotlb-page", "iotlb-domain"))
        if passed_through:
            self.assertEqual(counts["invalidations"]["queue"]["iotlb-page"], 0)
        else:
            self.assertGreater(translated, 0)

    def test_default(self):
        self.boot("", remapping=True)

    def test_default_without_interrupt_remapping(self):
        self.boot("", remapping=False)

    def test_strict(self):
        self.boot("iommu.strict=1", remapping=True)

    def test_strict_without_interrupt_remapping(self):
        self.boot("iommu.strict=1", remapping=False)

    def test_pass_through(self):
        self.boot("iommu=pt", remapping=True)

    def test_pass_through_without_interrupt_remapping(self):
        self.boot("iommu=pt", remapping=False)


class BootsOneCpu(Boots, LinuxCase):
    CPUS = 1


class BootsFourCpus(Boots, LinuxCase):
    CPUS = 4


class Probe:
    """An umbra-probe (plugin/probe/registers.h), driven from outside the guest by QEMU's test protocol, which
    accesses guest-physical addresses."""
    WINDOW = 0x1000
    IOVA, LENGTH, COMMAND, STATUS = 0x40, 0x48, 0x58, 0x60
    READ, WRITE = 1, 2
    FAULT = 2

    def __init__(self, protocol: Port, bar: int, deadline: float):
        self._protocol = protocol
        self._bar = bar
        self._deadline = deadline

    def _ask(self, line: str) -> list[str]:
        self._protocol.write(line.encode() + b"\n", self._deadline)
        words = self._protocol.read_line(self._deadline).decode().split()
        assert words[0] == "OK", f"{line}: {words}"
        return words

    def read(self, register: int) -> int:
        return int(self._ask(f"readq {self._bar + register:#x}")[1], 16)

    def write(self, register: int, value: int) -> None:
        self._ask(f"writeq {self._bar + register:#x} {value:#x}")

    def transfer(self, command: int, iova: int, length: int) -> int:
        """The status of the transfer."""
        self.write(self.IOVA, iova)
        self.write(self.LENGTH, length)
        self.write(self.COMMAND, command)
        return self.read(self.STATUS)


class Faults(LinuxCase):
    """What Linux says about a device that leaves its bounds."""

    def setUp(self):
        self.guest = self.emulated(extra=[
            "-device", "umbra-probe,bus=pcie.0,addr=6", "-device", "umbra-probe,bus=slot0,addr=0",
            "-chardev", "socket,id=registers,path=registers.socket,server=on,wait=off",
            "-object", "qtest,id=registers,chardev=registers,log=/dev/null"])
        self.guest.__enter__()
        self.addCleanup(self.guest.close)
        self.guest.wait_ready()
        self.protocol = Port.connect(self.guest.host.rundir / "registers.socket", self.guest.deadline)
        self.addCleanup(self.protocol.close)

    def probe(self, address: str) -> Probe:
        """The probe at a PCI address, able to do DMA as if it had a driver."""
        bar = self.shell(self.guest, f"cd /sys/bus/pci/devices/{address} && echo 1 >enable && "
                         "printf '\\006' | dd of=config bs=1 seek=4 conv=notrunc && head -n 1 resource")
        return Probe(self.protocol, int(bar.split()[0], 16), self.guest.deadline)

    def provoke(self, probe: Probe, command: int, iova: int) -> list[str]:
        """The lines about it in the kernel's log, which is empty afterwards."""
        # One access, as QEMU splits it: Linux prints only the first three of 5 s.
        self.assertEqual(probe.transfer(command, iova, 4), Probe.FAULT)
        # Linux prints from a threaded interrupt handler.
        self.shell(self.guest, "while ! dmesg | grep -q 'fault reason'; do sleep 0.1; done")
        result = self.guest.command("dmesg-check clear")
        self.assertEqual(result.status, 1)
        return [line for line in result.data["lines"] if "fault reason" in line]

    def test_dma_outside_of_every_mapping(self):
        for address, command, iova, line in (
                ("0000:00:06.0", Probe.WRITE, 0x5eadb124,
                 "[DMA Write NO_PASID] Request device [00:06.0] fault addr 0x5eadb000 [fault reason 0x05] PTE Write"),
                ("0000:01:00.0", Probe.READ, 0x12345678,
                 "[DMA Read NO_PASID] Request device [01:00.0] fault addr 0x12345000 [fault reason 0x06] PTE Read")):
            lines = self.provoke(self.probe(address), command, iova)
            self.assertEqual(len(lines), 1, lines)
            self.assertIn(line, lines[0])
        self.assertEqual(self.statistics(self.guest)["faults"]["reasons"], {"write-denied": 1, "read-denied": 1})
        # Nothing else was harmed.
        self.do(self.guest, "workload verify size=1m")
        self.do(self.guest, "dmesg-check")
        self.guest.power_off()

    def test_forged_interrupt(self):
        # An interrupt in compatibility format would name any vector of any CPU.
        lines = self.provoke(self.probe("0000:00:06.0"), Probe.WRITE, 0xfee00000)
        self.assertEqual(len(lines), 1, lines)
        self.assertRegex(lines[0], r"INTR-REMAP\] Request device \[00:06\.0\].*reason 0x25")
        self.do(self.guest, "workload verify size=1m")
        self.do(self.guest, "dmesg-check")
        self.guest.power_off()


class Reboots(LinuxCase):
    def test_warm_reboot_three_times(self):
        keys = "size=1m seed=7"
        with self.emulated(cpus=2) as guest:
            guest.wait_ready()
            guest.qmp.execute("set-action", reboot="reset")
            self.do(guest, f"workload verify phase=write {keys}")
            for _ in range(3):
                self.do(guest, "reboot")
                ready = guest.wait_ready()
                self.assertEqual(ready["device"]["iommu"], "dmar0")
                self.do(guest, f"workload verify phase=read {keys}")
                self.do(guest, "workload verify size=1m seed=8")
                self.do(guest, f"workload verify phase=write {keys}")
                self.do(guest, "dmesg-check")
            self.assertEqual(self.statistics(guest)["faults"]["recorded"], 0)
            self.assertGreaterEqual([event["event"] for event in guest.qmp.events].count("RESET"), 3)
            guest.power_off()


class Hotplug(LinuxCase):
    def test_nvme_behind_a_root_port(self):
        guest = self.emulated(nvme=False, cpus=2, extra=[
            "-blockdev", "driver=raw,node-name=disk,file.driver=file,file.filename=disk.raw"])
        self.make_disk(guest, "disk.raw")
        with guest:
            self.assertIsNone(guest.wait_ready()["device"])
            for _ in range(2):
                guest.qmp.execute("device_add", driver="nvme", id="plugged", drive="disk", serial="umbra", bus="slot0")
                self.shell(guest, "while [ ! -b /dev/nvme0n1 ]; do sleep 0.1; done")
                device = self.do(guest, "device")
                self.assertEqual(device["address"], "0000:01:00.0")
                self.assertEqual(device["group_type"], "DMA")
                self.do(guest, "workload verify size=1m")
                guest.qmp.execute("device_del", id="plugged")
                self.wait_deleted(guest)
                self.shell(guest, "while [ -e /sys/bus/pci/devices/0000:01:00.0 ]; do sleep 0.1; done")
                self.assertEqual(guest.command("device").status, 4)
            self.do(guest, "dmesg-check")
            self.assertEqual(self.statistics(guest)["faults"]["recorded"], 0)
            guest.power_off()

    def wait_deleted(self, guest) -> None:
        """Until the guest has let go of the device, which takes the 5 s of the slot's attention button."""
        deadline = time.monotonic() + LIMIT
        while not any(event["event"] == "DEVICE_DELETED" and event["data"].get("device") == "plugged"
                      for event in guest.qmp.events):
            self.assertLess(time.monotonic(), deadline, "the guest keeps the device")
            time.sleep(0.2)
            guest.qmp.execute("query-status")
        guest.qmp.events.clear()


class DeviceChecks(LinuxCase):
    """What run-vm does by default with a device that is somebody's: it looks and does not touch."""

    def test_each_kind_of_device(self):
        guest = self.emulated(nvme=False, extra=[
            "-blockdev", "driver=raw,node-name=disk,file.driver=file,file.filename=disk.raw",
            "-device", "nvme,drive=disk,serial=umbra,bus=slot0", "-netdev", NetworkPeer.netdev("net"),
            "-device", "e1000e,netdev=net,bus=slot1,romfile=", "-device", "umbra-probe,bus=slot2,addr=0"])
        data = random.Random(1).randbytes(DISK_BYTES)
        (guest.host.rundir / "disk.raw").write_bytes(data)
        with NetworkPeer(guest.host.rundir), guest:
            guest.wait_ready()
            kinds = []
            for command in read_only_check(3):
                answer = self.do(guest, command)
                if command == "check":
                    kinds.append((answer["kind"], answer["driver"]))
            self.assertEqual(kinds, [("disk", "nvme"), ("network", "e1000e"), ("other", None)])
            self.do(guest, f"select {guest_address(0)}")
            self.assertEqual(self.do(guest, "check")["read_bytes"], 4 << 20)
            guest.power_off()
        self.assertEqual((guest.host.rundir / "disk.raw").read_bytes(), data)


if __name__ == "__main__":
    unittest.main()
