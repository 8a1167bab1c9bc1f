# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest agent and umbra_dma_hold, in guests whose devices are emulated behind QEMU's own vIOMMU."""

import base64
import re
import unittest
from pathlib import Path

from umbra.vm.guest import Guest

from vm_case import VmCase

DISK_BYTES = 64 * 1024 * 1024
PAGE = 4096


class AgentCase(VmCase):
    """One guest for all tests of a class: booting one takes longer than most of them."""
    guest: Guest
    disk: Path
    address: str

    @classmethod
    def setUpClass(cls):
        boot = cls("boot")
        cls.guest = boot.direct(limit=1500, viommu="qemu-intel", cpus=2, extra=[
            "-drive", "if=none,id=disk,file=disk.raw,format=raw,cache=writethrough",
            "-device", "nvme,drive=disk,serial=umbra"])
        cls.disk = cls.guest.host.rundir / "disk.raw"
        with open(cls.disk, "wb") as disk:
            disk.truncate(DISK_BYTES)
        cls.guest.__enter__()
        cls.addClassCleanup(cls.guest.close)
        cls.ready = cls.guest.wait_ready()
        cls.address = cls.ready["device"]["address"]

    def boot(self):
        """Names the folder of the guest's logs."""

    def refused(self, command: str, status: int, words: str, phases=None):
        result = self.guest.command(command, phases)
        self.assertEqual(result.status, status, f"{command}: {result.error}")
        self.assertIn(words, result.error or "")

    def shell(self, script: str) -> str:
        return self.do(self.guest, f"exec {script}")["stdout"]


class GuestAgent(AgentCase):
    def test_ready_describes_the_machine(self):
        self.assertEqual(self.ready["protocol"], 1)
        self.assertEqual(self.ready["cpus"], 2)
        self.assertIn("umbra_dma_hold", self.ready["modules"])
        self.assertIn("strict", self.ready["policies"])
        self.assertEqual(self.ready["device"], self.do(self.guest, "device"))
        self.assertEqual(self.ready["device"]["block_bytes"], DISK_BYTES)
        self.assertEqual(self.ready["device"]["driver"], "nvme")

    def test_another_device_can_be_selected(self):
        bridge = "0000:00:1f.0"
        self.assertEqual(self.do(self.guest, f"select {bridge}")["address"], bridge)
        self.assertEqual(self.do(self.guest, "device")["address"], bridge)
        self.refused("select 0000:7f:00.0", 4, "no PCI device")
        self.refused("select ../power", 2, "no PCI address")
        self.refused("select", 2, "one PCI address")
        self.assertEqual(self.do(self.guest, "select default"), self.ready["device"])

    def test_wrong_command_lines_are_refused(self):
        for command, words in {
                "bogus": "unknown command",
                "exec": "expected a command",
                "exec -t 0 true": "1 to 86400",
                "exec -t x true": "1 to 86400",
                "dmesg-check twice": "only the word clear",
                "device 2": "no arguments",
                "policy": "policy must be",
                "policy lazy": "policy must be",
                "policy strict fresh=perhaps": "unknown key or value",
                "policy strict fq_flush=range": "decides fq_flush",
                "workload": "unknown workload",
                "workload ../command/device": "unknown workload",
                "workload fio rw": "expected KEY=VALUE",
                "workload fio colour=red": "unknown key colour",
                "workload fio rw=erase": "rw=erase",
                "workload fio bs=4q": "bs=4q",
                "workload fio iodepth=08": "iodepth=08",
                "workload fio size=1g": "more than the disk has",
                "workload dma-map pages=0": "pages=0",
                "workload dma-map pages=1025": "pages=1025",
                "workload hold pages_mapped=4194305": "pages_mapped=4194305",
                "workload hold operations=0": "cannot both be 0",
                "workload verify size=18446744073709551616": "size=18446744073709551616"}.items():
            with self.subTest(command):
                self.refused(command, 2, words)

    def test_a_line_that_is_too_long_is_refused_and_the_next_is_read(self):
        self.refused("exec echo " + "x" * 66000, 2, "longer than 65536 bytes")
        self.do(self.guest, "ping")

    def test_output_comes_byte_for_byte(self):
        text = self.shell(r'i=0; while [ $i -lt 256 ]; do printf "\\$(printf %03o $i)"; i=$((i + 1)); done')
        self.assertEqual(text.encode("latin-1"), bytes(range(256)))

    def test_long_text_comes_as_it_is(self):
        """Text of printable characters has a way of its own, however it ends."""
        lines = "tab\there, \"quoted\", back\\slash & dot.\n" * 100
        for end in ("", "no line's end", "\n\n", ".\n", ".", "\\", "\1"):
            with self.subTest(end):
                encoded = base64.b64encode((lines + end).encode()).decode()
                self.assertEqual(self.shell(f"echo {encoded} | base64 -d"), lines + end)

    def test_output_is_cut_at_its_limit(self):
        data = self.do(self.guest, "exec head -c 70000 /dev/zero")
        self.assertEqual(len(data["stdout"]), 65536)
        self.assertEqual(data["stdout_dropped_bytes"], 70000 - 65536)

    def test_exit_status(self):
        result = self.guest.command("exec echo why >&2; exit 3")
        self.assertEqual((result.status, result.data["exit_status"], result.data["stderr"]), (1, 3, "why\n"))

    def test_the_time_limit_ends_the_whole_process_group(self):
        result = self.guest.command("exec -t 1 trap '' TERM; sleep 98765 & sleep 98765")
        self.assertEqual(result.status, 3, result.error)
        self.assertIsNone(result.data["exit_status"])
        self.assertNotIn("98765", self.shell("ps | grep -v grep"))

    def test_a_workload_has_a_time_limit(self):
        self.refused("workload hold pages_mapped=16 operations=1000000000 limit=1", 3, "time limit of 1 s")
        # The device was given back all the same.
        self.assertEqual(self.do(self.guest, "device")["driver"], "nvme")

    def test_policies(self):
        for policy, kind in (("strict", "DMA"), ("fq-domain", "DMA-FQ"), ("strict", "DMA")):
            self.assertEqual(self.do(self.guest, f"policy {policy}")["group_type"], kind)
            self.assertFalse(self.do(self.guest, f"policy {policy}")["rebound"])
            self.assertTrue(self.do(self.guest, f"policy {policy} fresh=yes")["rebound"])
            self.assertEqual(self.do(self.guest, "device")["group_type"], kind)
        self.do(self.guest, "workload verify size=1m")

    def test_policies_that_the_kernel_does_not_have(self):
        for policy in {"fq-single", "fq-range"} - set(self.ready["policies"]):
            self.refused(f"policy {policy}", 4, "unsupported")

    def test_phases_come_in_order(self):
        phases = []
        self.do(self.guest, "workload hold pages_mapped=8 operations=10 barrier=yes", {
            "prepared": lambda: phases.append("prepared"), "measured": lambda: phases.append("measured")})
        self.assertEqual(phases, ["prepared", "measured"])

    def test_rounds_have_phases_of_their_own(self):
        phases = []
        data = self.do(self.guest, "workload hold pages_mapped=8 operations=10 rounds=2 barrier=yes", {
            "prepared": lambda: phases.append("prepared"), "measured": lambda: phases.append("measured")})
        self.assertEqual(phases, ["prepared", "measured"] * 2)
        self.assertEqual([round_["operations"] for round_ in data["rounds"]], [10, 10])

    def test_a_round_that_fails_is_the_last(self):
        phases = []
        self.refused("workload verify size=1m phase=read seed=7 rounds=3 barrier=yes", 1, "", {
            "prepared": lambda: phases.append("prepared")})
        self.assertEqual(phases, ["prepared"])

    def test_dma_map_benchmark(self):
        data = self.do(self.guest, "workload dma-map seconds=1 pages=16 threads=2")
        self.assertEqual((data["pages"], data["threads"]), (16, 2))
        for side in ("map_ns", "unmap_ns"):
            self.assertGreater(data[side]["mean"], 0)

    def test_fio_counts_what_it_was_asked_for(self):
        data = self.do(self.guest, "workload fio rw=randrw bs=8k iodepth=4 jobs=2 engine=io_uring seconds=1")
        for side in (data["read"], data["write"]):
            self.assertEqual(side["bytes"], side["ios"] * 8192)
            latency = side["latency_ns"]
            self.assertEqual(latency["count"], side["ios"])
            order = [latency[name] for name in ("min", "p50", "p90", "p99", "p999")]
            self.assertEqual(order, sorted(order))
            # fio's percentiles are the upper ends of its bins, which are up to 1/64 wide.
            self.assertLessEqual(latency["p999"], latency["max"] * 65 / 64)
        self.assertIsNone(self.do(self.guest, "workload fio rw=read bs=128k seconds=1")["write"])

    def test_corruption_is_seen(self):
        keys = "size=1m seed=7"
        data = self.do(self.guest, f"workload verify {keys} phase=write")
        self.assertEqual((data["written_bytes"], data["verified_bytes"]), (1 << 20, 0))
        data = self.do(self.guest, f"workload verify {keys} phase=read")
        self.assertEqual((data["written_bytes"], data["verified_bytes"], data["corrupt"]), (0, 1 << 20, False))
        with open(self.disk, "r+b") as disk:
            disk.seek(10 * PAGE + 100)
            disk.write(b"not what the guest wrote")
        result = self.guest.command(f"workload verify {keys} phase=read")
        self.assertEqual((result.status, result.error), (1, "data corruption"))
        self.assertTrue(result.data["corrupt"])
        self.assertIn(str(10 * PAGE), result.data["log"])

    def test_dmesg_check_counts_complaints(self):
        self.do(self.guest, "dmesg-check clear")
        complaints = {
            "faults": "DMAR: [DMA Write NO_PASID] Request device [00:01.0] fault addr 0x1000",
            "warnings": "WARNING: CPU: 0 PID: 1 at mm/slab.c:1",
            "bugs": "BUG: unable to handle page fault for address: 0",
            "lockups": "watchdog: BUG: soft lockup - CPU#0 stuck for 22s!",
            "io_errors": "I/O error, dev nvme0n1, sector 8"}
        for line in complaints.values():
            self.shell(f"echo '{line}' >/dev/kmsg")
        self.shell("echo 'nothing to complain about' >/dev/kmsg")
        result = self.guest.command("dmesg-check clear")
        self.assertEqual(result.status, 1)
        self.assertEqual({kind: result.data[kind] for kind in complaints}, dict.fromkeys(complaints, 1))
        self.assertEqual([line.split("] ", 1)[1] for line in result.data["lines"]], list(complaints.values()))
        self.assertEqual(self.do(self.guest, "dmesg-check")["lines"], [])


class HoldModule(AgentCase):
    """The module by its files; the guest's page tables, as the IOMMU driver shows them, say what is mapped."""

    def setUp(self):
        self.files = f"/sys/kernel/debug/umbra_dma_hold/{self.address}"
        self.do(self.guest, "dmesg-check clear")
        self.bind("umbra_dma_hold")
        # Only now, so that no other driver has used the domain: nothing is mapped, no IOVA was freed.
        self.do(self.guest, "policy strict fresh=yes")
        self.assertEqual(self.mapped(), {})

    def tearDown(self):
        self.bind("nvme")
        self.do(self.guest, "dmesg-check")

    def bind(self, driver: str):
        device = f"/sys/bus/pci/devices/{self.address}"
        self.shell(f"echo {driver} >{device}/driver_override; "
                   f"[ ! -e {device}/driver ] || echo {self.address} >{device}/driver/unbind; "
                   f"echo {self.address} >/sys/bus/pci/drivers_probe; readlink {device}/driver | grep -q /{driver}$")

    def write(self, **files):
        self.shell(f"cd {self.files} && " + " && ".join(f"echo {value} >{name}" for name, value in files.items()))

    def mapped(self) -> dict[int, int]:
        """IOVA page number to memory page number of every page that is mapped for the device."""
        text = self.shell(f"cat /sys/kernel/debug/iommu/intel/{self.address}/domain_translation_struct")
        rows = re.findall(r"^0x([0-9a-f]{13}) \|.*\t0x([0-9a-f]{16})$", text, re.MULTILINE)
        return {int(iova, 16): int(entry, 16) >> 12 & (1 << 40) - 1 for iova, entry in rows}

    def test_contiguous_pages_are_neighbours_in_both_spaces(self):
        self.write(layout="contiguous", pages_mapped=256, physical_pages=256, hold=1)
        held = self.mapped()
        self.assertEqual(len(held), 256)
        self.assertEqual(len(set(held.values())), 256)
        self.assertEqual(max(held) - min(held), 255)
        first = min(held)
        self.assertEqual({page - held[first] - (iova - first) for iova, page in held.items()}, {0})
        self.write(hold=0)
        self.assertEqual(self.mapped(), {})

    def test_scattered_pages_have_no_neighbours(self):
        self.write(layout="scattered", pages_mapped=256, physical_pages=32, hold=1)
        held = self.mapped()
        self.assertEqual(len(held), 256)
        self.assertEqual(len(set(held.values())), 32)
        self.assertFalse([iova for iova in held if iova + 1 in held])

    def test_reversed_pages_are_neighbours_that_do_not_match(self):
        # The last bundle is not full.
        self.write(layout="reversed", pages_mapped=200, physical_pages=256, hold=1)
        held = self.mapped()
        self.assertEqual((len(held), len(set(held.values()))), (200, 200))
        bundles = [first for first in held if first - 1 not in held or held[first - 1] != held[first] + 1]
        self.assertEqual(len(bundles), 4)
        self.assertFalse([iova for iova in held if held.get(iova + 1) == held[iova] + 1])
        self.write(hold=0)
        self.assertEqual(self.mapped(), {})

    def test_held_pages_stay_through_a_run(self):
        self.write(pages_mapped=128, hold=1)
        before = self.mapped()
        self.write(batch=16, threads=2, pages=4, operations=1000, run=1)
        self.assertEqual(self.mapped(), before)

    def test_unbinding_unmaps_everything(self):
        self.write(pages_mapped=128, hold=1)
        self.assertEqual(len(self.mapped()), 128)
        self.bind("dma_map_benchmark")
        self.assertEqual(self.mapped(), {})

    def test_unbinding_ends_a_run(self):
        self.write(pages_mapped=128, hold=1, operations=0, seconds=3600, threads=4)
        text = self.shell(f"(echo 1 >{self.files}/run; echo exit $?) 2>&1 & sleep 1; "
                          f"echo {self.address} >/sys/bus/pci/drivers/umbra_dma_hold/unbind; wait; "
                          "ls /sys/kernel/debug/umbra_dma_hold")
        self.assertIn("exit 1", text)
        self.assertNotIn(self.address, text)

    def test_a_signal_ends_a_run_and_there_is_no_result(self):
        self.write(pages_mapped=0, operations=0, seconds=3600)
        result = self.guest.command(f"exec -t 1 echo 1 >{self.files}/run")
        self.assertEqual(result.status, 3, result.error)
        result = self.guest.command(f"exec cat {self.files}/result")
        self.assertEqual(result.status, 1)
        self.assertIn("No data available", result.data["stderr"])

    def test_what_cannot_be_is_refused_with_a_reason(self):
        for name, value, reason in (
                ("pages", "0", "from 1 to 512"), ("pages", "513", "from 1 to 512"), ("pages", "-1", "from 1 to 512"),
                ("pages", "many", "from 1 to 512"), ("threads", "65", "from 1 to 64"),
                ("batch", "4097", "from 1 to 4096"), ("pages_mapped", "4194305", "from 0 to 4194304"),
                ("pages_mapped", "18446744073709551616", "from 0 to 4194304"),
                ("physical_pages", "0", "from 1 to 65536"), ("operations", "1000000001", "from 0 to 1000000000"),
                ("seconds", "3601", "from 0 to 3600"), ("layout", "diagonal", "contiguous, scattered or"),
                ("layout", "contiguous" * 100, "contiguous, scattered or"), ("hold", "2", "hold must be"),
                ("run", "0", "run takes only 1"), ("run", "1", "no pages are held")):
            with self.subTest(f"{name}={value[:24]}"):
                result = self.guest.command(f"exec echo {value} >{self.files}/{name}")
                self.assertEqual(result.status, 1)
                self.assertIn("Invalid argument", result.data["stderr"])
                self.assertIn(reason, self.shell("dmesg | grep umbra_dma_hold | tail -n 1"))

    def test_parameters_of_held_pages_are_fixed(self):
        self.write(pages_mapped=8, hold=1)
        for name, value in (("pages_mapped", 9), ("physical_pages", 9), ("layout", "scattered"), ("hold", 1)):
            result = self.guest.command(f"exec echo {value} >{self.files}/{name}")
            self.assertIn("Device or resource busy", result.data["stderr"])
        self.assertEqual(self.shell(f"cat {self.files}/pages_mapped"), "8\n")


class HoldWorkload(AgentCase):
    def test_counts_add_up(self):
        data = self.do(self.guest, "workload hold pages_mapped=2048 physical_pages=64 layout=scattered pages=4 "
                                   "threads=3 batch=7 operations=1000")
        for name, value in {"pages_mapped": 2048, "physical_pages": 64, "layout": "scattered", "pages": 4, "threads": 3,
                            "batch": 7, "operations": 3000, "map_errors": 0}.items():
            self.assertEqual(data[name], value, name)
        # Scattered: twice as many are mapped, and every second one let go again.
        for block, count in (("map_ns", 3000), ("unmap_ns", 3000), ("fill_ns", 4096)):
            latency = data[block]
            self.assertEqual(latency["count"], count, block)
            order = [latency[name] for name in ("min", "p50", "p90", "p99", "p999", "max")]
            self.assertEqual(order, sorted(order))
            self.assertLessEqual(latency["min"], latency["mean"])
            self.assertLessEqual(latency["mean"], latency["max"])

    def test_a_run_by_time(self):
        data = self.do(self.guest, "workload hold pages_mapped=0 operations=0 seconds=1")
        self.assertGreater(data["operations"], 0)
        self.assertGreaterEqual(data["elapsed_ns"], 10**9)
        self.assertEqual(data["fill_ns"], {"count": 0} | dict.fromkeys(
            ("mean", "min", "p50", "p90", "p99", "p999", "max")))

    def test_more_pages_than_a_vfio_container_takes(self):
        for policy in ("strict", "fq-domain"):
            self.do(self.guest, f"policy {policy} fresh=yes")
            data = self.do(self.guest, "workload hold pages_mapped=70000 layout=reversed operations=2000 batch=64")
            self.assertEqual(data["fill_ns"]["count"], 70000 // 64 + 1)
        self.do(self.guest, "dmesg-check")


if __name__ == "__main__":
    unittest.main()
