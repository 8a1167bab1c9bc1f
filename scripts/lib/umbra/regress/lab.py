# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a subject is booted: in the testbed with a passed-through NVMe, or directly with an emulated one."""

import itertools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from umbra.building import cpio, products
from umbra.errors import ExitCode, UserError
from umbra.regress.subject import Subject
from umbra.vm.config import TESTBED_MEMORY, GuestConfig, kvm_runs_guests
from umbra.vm.guest import Guest, fresh_directory
from umbra.vm.host import LocalHost, TestbedHost
from umbra.vm.testbed import Testbed

KUNIT_FOLDER = "lib/modules/kunit"
_DISK_BYTES = 64 * 1024 * 1024


class Lab:
    """`subject` may be replaced between scenes. `limit`: seconds for the life of one guest."""

    def __init__(self, out: Path, limit: float, viommus: list[str], offline: bool, say: Callable[[str], None]):
        self.out = out
        self.limit = limit
        self.say = say
        self.subject: Subject  # comes with the scene that builds it
        self._numbers = itertools.count(1)
        build = products.BuildOptions(offline=offline)
        self._testbed = Testbed.ensure(build)
        self._plugin = products.ensure_plugin(build) if "umbra" in viommus else None

    def testbed(self, viommu: str) -> Guest:
        """A guest with a passed-through NVMe. Use as a context manager."""
        rundir = self._rundir(f"testbed-{viommu}")
        config = self._config(rundir, viommu, memory=TESTBED_MEMORY, passthrough=[TestbedHost.DEVICES[0]])
        return Guest(self._testbed.host(rundir), config, self.limit)

    def direct(self, viommu: str, append: str = "", cpus: int = 1) -> Guest:
        """A guest on this machine with an emulated NVMe behind the vIOMMU."""
        rundir = self._rundir(f"direct-{viommu}")
        config = self._config(rundir, viommu, append=append, cpus=cpus, kvm=kvm_runs_guests())
        host = LocalHost(rundir, self._testbed.qemu.binary)
        host.add_nvme(config, _DISK_BYTES)
        return Guest(host, config, self.limit)

    def _rundir(self, name: str) -> Path:
        rundir = fresh_directory(self.out / f"{next(self._numbers):02d}-{name}")
        self.say(f"booting {self.subject.name}: {name.replace('-', ' ', 1)}; logs in {rundir}")
        return rundir

    def _config(self, rundir: Path, viommu: str, **settings: Any) -> GuestConfig:
        return GuestConfig(viommu=viommu, kernel=self.subject.bzimage, initrd=self._initrd(rundir),
                           plugin=self._plugin if viommu == "umbra" else None, extra=["-D", "trace.log"], **settings)

    def _initrd(self, rundir: Path) -> Path:
        """The guest's image, with the subject's modules in place of the stock kernel's."""
        target = rundir / "initrd"
        shutil.copyfile(self._testbed.images.guest_initrd, target)
        with open(target, "ab") as out:
            writer = cpio.Writer(out, start=target.stat().st_size)
            folders = {"lib/modules/umbra": self.subject.modules, KUNIT_FOLDER: self.subject.kunit_modules}
            for parent in ("lib", "lib/modules", *folders):
                writer.directory(parent)
            for folder, modules in folders.items():
                for module in modules:
                    writer.file(f"{folder}/{module.name}", module.read_bytes())
            writer.finish()
        return target


# What the kernel's console must not say; the agent's dmesg-check looks for the same after boot.
_COMPLAINT = re.compile(r"WARNING: |BUG: |kernel BUG at|Oops|KASAN|UBSAN|general protection fault|INFO: possible |"
                        r"rcu.*detected stall|soft lockup|hard LOCKUP|blocked for more than|DMAR: .*[Ff]ault")


def complaints(console: Path) -> list[str]:
    """Lines of a console that tell of a defect."""
    try:
        text = console.read_text(errors="replace")
    except OSError as error:
        raise UserError(ExitCode.ENVIRONMENT, f"The console {console} cannot be read: {error.strerror}.") from None
    return [line.strip() for line in text.splitlines() if _COMPLAINT.search(line)]
