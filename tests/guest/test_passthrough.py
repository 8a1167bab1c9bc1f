# SPDX-License-Identifier: GPL-2.0-or-later
"""Two devices passed through behind Umbra, from the guest's boot to its end: in two guest domains and in one, with
the kernel's driver and with one in user space, rebound, unplugged, and through reboots.

The steps of a test share one guest, since booting one takes longer than most of them. What they look at, each from
books of its own: the guest's data, Umbra's statistics and verification, and the testbed host's kernel (vfio_host.py).
"""

import json
import random
import threading
import time
import unittest
from typing import TYPE_CHECKING

from umbra.vm.counts import Counter
from umbra.vm.host import TestbedHost
from umbra.vm.viommu import Viommu

from policy_counts import PolicyCounts
from vfio_host import VfioHost
from vm_case import LIMIT, VmCase

PAGE = 4096
ADDRESSES = ("0000:01:00.0", "0000:02:00.0")      # in the guest, each in a slot of its own
SOURCES = (0x0100, 0x0200)
FUNCTIONS = ("0000:01:00.0", "0000:01:00.1")      # both in the first slot
FUNCTION_SOURCES = (0x0100, 0x0101)
KEPT = "size=1m seed=11"                          # what `workload verify` leaves on the disk through reboots
VERIFICATIONS = 5                                 # at least, while I/O runs


class PassthroughCase(VmCase):
    """A guest with both devices, up; `self.guest`, `self.viommu` and `self.vfio_host` are of use then."""
    SHARED_CONTAINER = False                      # of the host, by both devices

    def boot(self, **settings):
        settings.setdefault("devices", 2)
        self.guest = self.on_testbed(limit=900, viommu="umbra", **settings)
        self.guest.__enter__()
        self.addCleanup(self.guest.close)
        self.guest.wait_ready()
        self.viommu = Viommu(self.guest.qmp)
        self.vfio_host = VfioHost(self.guest.host)
        self.random = random.Random(4)

    def shell(self, script: str) -> str:
        return self.do(self.guest, f"exec -t 120 {script}")["stdout"]

    def until(self, what: str, condition) -> None:
        deadline = time.monotonic() + LIMIT
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.2)

    def wait_deleted(self, *names: str) -> None:
        """Until the guest has let go of devices, which takes the 5 s of a slot's attention button."""
        def deleted() -> bool:
            self.guest.qmp.execute("query-status")
            gone = {event["data"].get("device") for event in self.guest.qmp.events
                    if event["event"] == "DEVICE_DELETED"}
            return gone >= set(names)
        self.until("the guest keeps a device", deleted)
        self.guest.qmp.events.clear()

    # ---- The guest's disks ----

    def disk(self, address: str) -> str:
        """Waits for the disk of the controller at `address`."""
        return self.shell(f"cd /sys/bus/pci/devices/{address} && "
                          "while ! set -- nvme/nvme*/nvme*n*; [ ! -b /dev/${1##*/} ]; do sleep 0.1; done; "
                          "echo /dev/${1##*/}").strip()

    def fio(self, addresses) -> str:
        """Writes to all disks at once, in an order of its own each time, and reads back what was written."""
        jobs = "".join(f" --name=job{index} --filename={self.disk(address)} --randseed={self.random.getrandbits(31)}"
                       for index, address in enumerate(addresses))
        return ("exec -t 300 fio --output=/tmp/fio --thread --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite "
                "--bs=4k --size=512k --clocksource=clock_gettime --verify=crc32c --verify_fatal=1 "
                f"--verify_state_save=0 --do_verify=1{jobs} || {{ cat /tmp/fio; exit 1; }}")

    def verified_io(self, addresses) -> None:
        """I/O on the disks, with the shadow verified at random moments meanwhile, and once in peace."""
        verifications = 0
        while verifications < VERIFICATIONS:
            command = self.fio(addresses)
            failures = []

            def work():
                try:
                    self.do(self.guest, command)
                except BaseException as failure:  # noqa: B036 - raised again below
                    failures.append(failure)
            worker = threading.Thread(target=work, daemon=True)
            worker.start()
            while worker.is_alive():
                self.verify()
                verifications += 1
                worker.join(self.random.uniform(0.0, 0.3))
            if failures:
                raise failures[0]
        self.verify_in_peace()

    def policy(self, name: str, addresses) -> None:
        for address in addresses:
            self.do(self.guest, f"select {address}")
            self.assertEqual(self.do(self.guest, f"policy {name}")["policy"], name)
            self.disk(address)
        self.do(self.guest, "select default")

    def bind(self, driver: str, addresses) -> None:
        """Takes devices from the driver that they have; an empty `driver` leaves them without one."""
        for address in addresses:
            self.shell(f"cd /sys/bus/pci/devices/{address}; "
                       f"[ ! -e driver ] || echo {address} >driver/unbind; echo {driver} >driver_override")
        if driver:
            # All at once: VFIO wants a whole group.
            self.shell("; ".join(f"echo {address} >/sys/bus/pci/drivers_probe" for address in addresses) + "; "
                       + " && ".join(f"[ -e /sys/bus/pci/drivers/{driver}/{address} ]" for address in addresses))

    # ---- Umbra ----

    def verify(self) -> dict:
        verification = self.viommu.verify()
        self.assertTrue(verification["clean"], verification)
        self.assertTrue(verification["complete"], verification)
        return verification

    def pinned_pages(self) -> int:
        return sum(device["pinned-bytes"] for device in self.viommu.devices()) // PAGE

    def device(self, source: int) -> dict:
        device, = [device for device in self.viommu.devices() if device["source"] == source]
        return device

    def verify_in_peace(self) -> None:
        """No I/O runs: guest tables, Umbra's books and the host kernel's agree to the page."""
        # A flush queue holds unmapped pages back for a moment.
        self.until("the guest's changes stay pending", lambda: self.viommu.verify()["pending"] == 0)
        self.verify()
        pages = self.pinned_pages()
        self.assertEqual(self.vfio_host.pinned_pages(), pages)
        mapped = list(map(self.vfio_host.mapped_pages, TestbedHost.DEVICES))
        if self.SHARED_CONTAINER:
            self.assertEqual(mapped, [pages, pages])
        else:
            self.assertEqual(sum(mapped), pages)

    def nothing_mapped(self, source: int, address: str) -> None:
        """For a device without a driver. `address`: in the testbed host."""
        self.until("mappings stay", lambda: self.device(source)["pinned-bytes"] == 0)
        self.assertEqual(self.device(source)["live-mappings"], 0)
        self.assertEqual(self.vfio_host.mapped_pages(address), 0)

    def check_domains(self, sources, domains: int) -> None:
        """Each domain has one shadow, and the devices are spread evenly over the domains."""
        devices = self.viommu.devices()
        self.assertEqual({device["source"] for device in devices}, set(sources))
        self.assertEqual({device["mode"] for device in devices}, {"translated"})
        numbers = {device["domain"] for device in devices}
        self.assertEqual(len(numbers), domains)
        shadows = [domain for domain in self.viommu.domains() if domain["devices"] > 0]
        self.assertEqual({domain["domain"] for domain in shadows}, numbers)
        self.assertEqual([domain["devices"] for domain in shadows], [len(sources) // domains] * domains)

    # ---- The end ----

    def power_off(self) -> None:
        """After the guest's end the host has no mapping and no pinned page of it, and no fault was seen."""
        self.do(self.guest, "dmesg-check")
        self.assertEqual(self.viommu.statistics()["faults"]["recorded"], 0)
        self.assertEqual(self.vfio_host.faults(), [])
        self.assertGreater(self.vfio_host.pinned_pages(), 0)
        self.assertNotEqual(self.vfio_host.holders(), "")
        self.guest.power_off()
        self.assertEqual(self.vfio_host.holders(), "")
        self.assertEqual(self.vfio_host.pinned_pages(), 0)
        for address in TestbedHost.DEVICES:
            self.assertEqual(self.vfio_host.mapped_pages(address), 0)


class UserDriver:
    """The guest's umbra_vfio_nvme (tests/guest/program), which takes orders through a FIFO."""

    def __init__(self, case: PassthroughCase, addresses):
        self._case = case
        # The FIFO is held open for writing by a process of its own, else the first order would be the last.
        case.shell("mkfifo /tmp/orders; : >/tmp/answers; "
                   f"(umbra_vfio_nvme {' '.join(addresses)} </tmp/orders >/tmp/answers 2>/tmp/complaints; "
                   "echo $? >/tmp/status) & (sleep 3600 >/tmp/orders & echo $! >/tmp/keeper)")
        self._answers = 0
        self.ready = self._answer()

    def _answer(self) -> dict:
        self._answers += 1
        text = self._case.shell("while [ ! -e /tmp/status ] && "
                                f"[ $(grep -c $ /tmp/answers) -lt {self._answers} ]; do sleep 0.05; done; "
                                f"sed -n {self._answers}p /tmp/answers; cat /tmp/complaints")
        try:
            return json.loads(text)
        except ValueError:
            raise AssertionError(f"umbra_vfio_nvme: {text}") from None

    def order(self, line: str) -> dict:
        self._case.shell(f"echo {line} >/tmp/orders")
        return self._answer()

    def quit(self) -> None:
        status = self._case.shell("echo quit >/tmp/orders; while [ ! -s /tmp/status ]; do sleep 0.05; done; "
                                  "kill $(cat /tmp/keeper); cat /tmp/status; rm /tmp/orders /tmp/status /tmp/answers")
        self._case.assertEqual(status.strip(), "0")


# What a mixin is mixed into, for the type checker.
if TYPE_CHECKING:
    class _Case(PolicyCounts, PassthroughCase):
        pass
else:
    _Case = PolicyCounts


class TwoDevices(_Case):
    """Mixed into one test case a VFIO backend."""
    IOMMUFD = False
    BOOTS_AGAIN = ""                              # method of Guest; each takes half a minute, so each backend has one

    def test_from_boot_to_end(self):
        self.boot(iommufd=self.IOMMUFD)
        self.two_domains()
        self.rebinding()
        self.user_space_driver()
        self.unplugging()
        self.one_domain()
        self.next_boot()
        self.power_off()

    def two_domains(self) -> None:
        counter = Counter(self.guest)
        counts = []
        for policy in ("strict", "fq-domain"):
            self.policy(policy, ADDRESSES)
            self.verified_io(ADDRESSES)
            self.check_domains(SOURCES, domains=2)
            counts.append(self.count_hold(self.guest, counter))
        self.check_counts(*counts)
        self.check_own_counts(*counts)

    def rebinding(self) -> None:
        """A driver's mappings go with it, and nobody else's."""
        self.do(self.guest, f"workload verify phase=write {KEPT}")
        other = self.vfio_host.mapped_pages(TestbedHost.DEVICES[1])
        self.assertGreater(other, 0)
        self.bind("", ADDRESSES[:1])
        self.nothing_mapped(SOURCES[0], TestbedHost.DEVICES[0])
        self.assertEqual(self.vfio_host.mapped_pages(TestbedHost.DEVICES[1]), other)
        self.verify_in_peace()
        self.bind("nvme", ADDRESSES[:1])
        self.disk(ADDRESSES[0])
        self.do(self.guest, f"workload verify phase=read {KEPT}")
        self.verify_in_peace()

    def user_space_driver(self) -> None:
        """The guest hands both devices on, by VFIO, to a program in one container: one domain."""
        self.bind("vfio-pci", ADDRESSES)
        driver = UserDriver(self, ADDRESSES)
        self.assertEqual(driver.ready["devices"], 2)
        queues = driver.ready["queue_bytes"]
        self.check_domains(SOURCES, domains=1)
        shadow, = [domain for domain in self.viommu.domains() if domain["devices"] > 0]
        # One mirror, and each device's container of the host filled from it.
        self.assertEqual(shadow["pinned-bytes"], 2 * queues)
        driver.order("map 300")
        shadow, = [domain for domain in self.viommu.domains() if domain["devices"] > 0]
        self.assertEqual(shadow["pinned-bytes"], 2 * (queues + 300 * PAGE))
        self.verify_in_peace()
        serials = set()
        for index in range(2):
            answer = driver.order(f"identify {index}")
            self.assertTrue(answer["completed"] and answer["touched"], answer)
            self.assertEqual(answer["status"], 0)
            serials.add(answer["serial"])
        self.assertEqual(serials, {"UMBRA0", "UMBRA1"})
        self.assertEqual(self.vfio_host.faults(), [])

        driver.order("unmap")
        self.verify_in_peace()
        for index, address in enumerate(TestbedHost.DEVICES):
            self.assertEqual(self.vfio_host.mapped_pages(address), queues // PAGE)
            self.assertFalse(driver.order(f"identify {index}")["touched"])
            faults = self.vfio_host.faults()
            self.assertTrue(faults)
            self.assertTrue(all(f"[{address[5:]}]" in line and "DMA Write" in line for line in faults), faults)
        driver.quit()
        for source, address in zip(SOURCES, TestbedHost.DEVICES, strict=True):
            self.nothing_mapped(source, address)
        self.bind("nvme", ADDRESSES)

    def unplugging(self) -> None:
        for index in range(2):
            self.guest.qmp.execute("device_del", id=f"passthrough{index}")
        self.wait_deleted("passthrough0", "passthrough1")
        self.assertEqual(self.viommu.devices(), [])
        self.assertEqual([domain for domain in self.viommu.domains() if domain["devices"] > 0], [])
        self.assertEqual(self.vfio_host.pinned_pages(), 0)
        self.verify()

    def one_domain(self) -> None:
        """Plugged in again, as functions of one device, which Linux puts into one group and domain."""
        self.plug(1, "0.1")
        self.plug(0, "0.0")  # function 0 makes the guest look
        self.shell(f"while [ ! -e /sys/bus/pci/devices/{FUNCTIONS[1]}/driver ]; do sleep 0.1; done")
        self.do(self.guest, f"workload verify phase=read {KEPT}")
        for policy in ("strict", "fq-domain"):
            self.policy(policy, FUNCTIONS[:1])
            syncs, invalidations = self.viommu.syncs(), self.viommu.invalidations()
            self.verified_io(FUNCTIONS)
            self.check_domains(FUNCTION_SOURCES, domains=1)
            # One comparison an invalidation at most, not one for each device.
            self.assertLessEqual(self.viommu.syncs() - syncs, self.viommu.invalidations() - invalidations)
            self.assertGreater(self.viommu.syncs(), syncs)
        # What is mapped for one device is for the other.
        one, other = (self.device(source) for source in FUNCTION_SOURCES)
        self.assertEqual(one["pinned-bytes"], other["pinned-bytes"])
        self.assertEqual(one["live-mappings"], other["live-mappings"])

    def plug(self, index: int, place: str) -> None:
        backend = {"iommufd": f"iommufd{index}"} if self.IOMMUFD else {}
        self.guest.qmp.execute("device_add", driver="vfio-pci", id=f"passthrough{index}", bus="slot0", addr=place,
                               multifunction=True, host=TestbedHost.DEVICES[index], **backend)

    def next_boot(self) -> None:
        """What the guest had mapped is gone when it comes back, asked to or crashed."""
        self.do(self.guest, f"workload verify phase=write {KEPT}")
        self.do(self.guest, "dmesg-check")
        getattr(self.guest, self.BOOTS_AGAIN)()
        self.check_domains(FUNCTION_SOURCES, domains=1)
        for address in FUNCTIONS:
            self.disk(address)
        self.verify_in_peace()
        self.do(self.guest, f"workload verify phase=read {KEPT}")
        self.verified_io(FUNCTIONS)


class TwoDevicesType1(TwoDevices, PassthroughCase):
    BOOTS_AGAIN = "crash"


class TwoDevicesIommufd(TwoDevices, PassthroughCase):
    IOMMUFD = True
    BOOTS_AGAIN = "reboot"


class PassThroughMode(PassthroughCase):
    """iommu=pt: the guest trusts its devices, here two behind a PCI bridge, so with one requester id. Then it no
    longer does."""
    BEHIND_BRIDGE = ("0000:02:01.0", "0000:02:02.0")
    SHARED_CONTAINER = True

    def test_to_translation_and_back(self):
        self.boot(append="iommu=pt", bridges=["pcie-pci-bridge,id=bridge,bus=slot0"],
                  places=["bus=bridge,addr=1", "bus=bridge,addr=2"])
        ram = int(self.shell("awk '$1 == \"MemTotal:\" { print $2 }' /proc/meminfo")) // 4
        for kind, mode in (("identity", "pass-through"), ("DMA", "translated"), ("identity", "pass-through")):
            self.set_type(kind)
            devices = self.viommu.devices()
            self.assertEqual({device["source"] for device in devices}, {0x0200})
            self.assertEqual({device["mode"] for device in devices}, {mode}, devices)
            if mode == "pass-through":
                for command in (self.fio(self.BEHIND_BRIDGE), "dmesg-check"):
                    self.do(self.guest, command)
                self.verify()
                self.assertEqual(self.pinned_pages(), 0)
                for address in TestbedHost.DEVICES:
                    self.assertGreater(self.vfio_host.mapped_pages(address), ram)
            else:
                self.verified_io(self.BEHIND_BRIDGE)
        self.power_off()

    def set_type(self, kind: str) -> None:
        group = "/sys/bus/pci/devices/0000:02:01.0/iommu_group"
        if self.shell(f"cat {group}/type").strip() == kind:
            return
        self.bind("", self.BEHIND_BRIDGE)
        self.shell(f"echo {kind} >{group}/type")
        self.bind("nvme", self.BEHIND_BRIDGE)


class UnpluggedBridges(PassthroughCase):
    """A PCI bridge and a PCI Express switch, each with a device behind it, that leave while the device is in use. VFIO
    keeps its container for a moment longer than the bus is there."""
    BEHIND_BRIDGE = "0000:02:01.0"
    IOMMUFD = False

    def leave(self) -> None:
        # Slots that the guest serves by itself: those of ACPI do not let go of a bridge with a device behind it.
        self.boot(iommufd=self.IOMMUFD, extra=["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"],
                  bridges=["pcie-pci-bridge,id=bridge,bus=slot0", "x3130-upstream,id=switch,bus=slot1",
                           "xio3130-downstream,id=downstream,bus=switch,chassis=9"],
                  places=["bus=bridge,addr=1", "bus=downstream,addr=0"])
        behind_switch = self.shell("for d in /sys/bus/pci/devices/*; do [ $(cat $d/class) = 0x010802 ] && "
                                   f"[ ${{d##*/}} != {self.BEHIND_BRIDGE} ] && echo ${{d##*/}}; done; :").strip()
        self.verified_io([self.BEHIND_BRIDGE, behind_switch])
        # From outside, then by the guest itself.
        self.guest.qmp.execute("device_del", id="bridge")
        self.wait_deleted("passthrough0", "bridge")
        self.verified_io([behind_switch])
        self.shell("for slot in /sys/bus/pci/slots/*; do [ $(cat $slot/power) = 0 ] || echo 0 >$slot/power; done")
        self.until("the guest keeps the switch", lambda: self.viommu.devices() == [])
        self.assertEqual(self.vfio_host.pinned_pages(), 0)
        for address in TestbedHost.DEVICES:
            self.assertEqual(self.vfio_host.mapped_pages(address), 0)
        self.verify()
        self.do(self.guest, "dmesg-check")
        self.assertEqual(self.viommu.statistics()["faults"]["recorded"], 0)
        self.guest.power_off()


class UnpluggedBridgesType1(UnpluggedBridges):
    def test_everything_is_let_go(self):
        self.leave()


class UnpluggedBridgesIommufd(UnpluggedBridges):
    IOMMUFD = True

    def test_everything_is_let_go(self):
        self.leave()


if __name__ == "__main__":
    unittest.main()
