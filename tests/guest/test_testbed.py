# SPDX-License-Identifier: GPL-2.0-or-later
"""A device passed through by real VFIO in the testbed: the peer's data and counts, and how failures are told."""

import time
import unittest

from umbra.vm.counts import Counter
from umbra.vm.viommu import Viommu

from policy_counts import PolicyCounts
from vm_case import LIMIT, MEMORY, VmCase


class Peer(PolicyCounts):
    """QEMU's own intel-iommu. Mixed into one test case a backend."""
    IOMMUFD = False

    def test_policies(self):
        with self.on_testbed(viommu="qemu-intel", iommufd=self.IOMMUFD) as guest:
            guest.wait_ready()
            counter = Counter(guest)
            counts = []
            for policy in ("strict", "fq-domain"):
                self.do(guest, f"policy {policy}")
                self.do(guest, "workload verify size=1m")
                counts.append(self.count_hold(guest, counter))
            self.do(guest, "dmesg-check")
            guest.power_off()
        self.check_counts(*counts)


class QemuIntelType1(Peer, VmCase):
    pass


class QemuIntelIommufd(Peer, VmCase):
    IOMMUFD = True


class EntryLimit(VmCase):
    """More pages mapped than type1 allows a container (dma_entry_limit, lowered in the VFIO host)."""

    LIMIT_OF_HOST = "vfio_iommu_type1.dma_entry_limit=2048"
    OTHER, OTHER_SOURCE = "0000:02:00.0", 0x0200  # a second device, whose own container has room

    def test_umbra_tells_the_operator_and_heals(self):
        with self.on_testbed(viommu="umbra", devices=2, host_append=self.LIMIT_OF_HOST) as guest:
            guest.wait_ready()
            viommu = Viommu(guest.qmp)
            self.start_other_io(guest)
            during = {}

            def limited():
                during.update(viommu.shadow())
                self.wait_for_other_io(viommu)
                self.assertGreater(viommu.shadow()["missing-leaves"], 0)
            self.do(guest, "workload hold pages_mapped=4096 layout=reversed operations=64 barrier=yes",
                    {"measured": limited})
            after = viommu.shadow()
            self.do(guest, "workload verify size=1m")
            self.do(guest, "exec -t 300 touch /tmp/enough; while [ ! -s /tmp/other ]; do sleep 0.1; done; "
                    "cat /tmp/fio; exit $(cat /tmp/other)")
            log = guest.host.describe_failure()
            guest.power_off()
        self.assertGreater(during["map"]["failures"], 0)
        self.assertGreater(during["missing-leaves"], 0)
        self.assertIn("dma_entry_limit", log)
        self.assertLess(log.count("dma_entry_limit"), 8, "told once, not for each failure")
        self.assertEqual(after["missing-leaves"], 0)
        self.assertLess(after["live-mappings"], 2048)

    def start_other_io(self, guest) -> None:
        """Writes to the other device's disk and reads back, again and again, until there is a file /tmp/enough. Then
        /tmp/other holds the first status that was not 0, or 0."""
        self.do(guest, f"exec cd /sys/bus/pci/devices/{self.OTHER} && set -- nvme/nvme*/nvme*n* && (status=0; "
                "while [ $status = 0 ] && [ ! -e /tmp/enough ]; do "
                "fio --name=other --filename=/dev/${1##*/} --output=/tmp/fio --thread --direct=1 --ioengine=libaio "
                "--iodepth=4 --rw=randwrite --bs=4k --size=256k --clocksource=clock_gettime --verify=crc32c "
                "--verify_fatal=1 --verify_state_save=0 --do_verify=1; status=$?; done; "
                "echo $status >/tmp/other) </dev/null >/dev/null 2>&1 &")

    def wait_for_other_io(self, viommu: Viommu) -> None:
        """Until the other device has had 100 more pages mapped."""
        def maps() -> int:
            device, = [device for device in viommu.devices() if device["source"] == self.OTHER_SOURCE]
            self.assertEqual(device["map"]["failures"], 0)
            return device["map"]["calls"]
        before, deadline = maps(), time.monotonic() + LIMIT
        while maps() < before + 100:
            self.assertLess(time.monotonic(), deadline, "the guest's other I/O stands still")
            time.sleep(0.2)


class RunVm(VmCase):
    def run_vm(self, *words: str, viommu: str = "qemu-intel"):
        return self.run_script("run-vm", "--offline", "--testbed", "--mem", MEMORY, "--viommu", viommu, *words)


class Launcher(RunVm):
    """run-vm's exit codes are what automation builds on."""

    def test_pass(self):
        done = self.run_vm("--policy", "fq-domain", "--run", "device", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('"group_type": "DMA-FQ"', done.stdout)

    def test_panic_is_exit_code_1(self):
        done = self.run_vm("--run", "crash")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("panicked", done.stderr)

    def test_hang_is_exit_code_3_and_shows_the_console(self):
        done = self.run_vm("--timeout", "30", "--run", "exec -t 80000 sleep 80000")
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("time limit", done.stderr)
        self.assertIn("guest-console.log", done.stderr)

    def test_qemu_that_does_not_start_is_exit_code_4(self):
        done = self.run_vm("--", "-device", "no-such-device")
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertIn("no-such-device", done.stderr)


class OtherViommus(RunVm):
    def test_virtio_iommu(self):
        done = self.run_vm(viommu="qemu-virtio")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_none(self):
        done = self.run_vm(viommu="none")
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()
