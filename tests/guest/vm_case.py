# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests in VMs share: products that scripts/test has built, guests, and their logs.

Guests run on the testbed (real VFIO inside a VM) or directly on QEMU (devices emulated behind the
vIOMMU). A test that fails keeps its logs below build/guest-tests and says where.
"""

import functools
import itertools
import subprocess
import unittest
from pathlib import Path

from umbra import project
from umbra.building import products
from umbra.vm.config import GuestConfig, kvm_runs_guests
from umbra.vm.guest import AgentResult, Guest, fresh_directory
from umbra.vm.host import LocalHost, TestbedHost, TestbedOptions
from umbra.vm.testbed import Testbed

OFFLINE = products.BuildOptions(offline=True)
plugin = functools.cache(lambda: products.ensure_plugin(OFFLINE))  # up to date once a process
SCRIPTS = project.TREE / "scripts"

# Seconds; a testbed boot takes 15 to 30, a direct one 5 to 10. Far above, for busy machines.
LIMIT = 400

# Of guests on the testbed, where VFIO has all of it cleared and pinned before they start.
MEMORY = "256M"


class VmCase(unittest.TestCase):
    _numbers = itertools.count(1)

    def run_directory(self) -> Path:
        name = f"{self.id().rsplit('.', 2)[-2]}.{self.id().rsplit('.', 1)[-1]}-{next(self._numbers)}"
        return fresh_directory(project.TREE / "build/guest-tests" / name)

    def _config(self, rundir: Path, settings: dict) -> GuestConfig:
        kernel = products.ensure_kernel(OFFLINE, patched=settings.pop("patched", False))
        config = GuestConfig(kernel=kernel.bzimage, extra=["-D", "trace.log"] + settings.pop("extra", []),
                             **settings)
        config.initrd = products.ensure_images(OFFLINE).guest_initrd_for(kernel, rundir)
        if config.viommu == "umbra":
            config.plugin = plugin()
        return config

    def on_testbed(self, host_append: str = "", limit: float = LIMIT, devices: int = 1, **settings) -> Guest:
        """A guest with `devices` passed-through NVMe controllers. Use as a context manager."""
        rundir = self.run_directory()
        settings.setdefault("memory", MEMORY)
        config = self._config(rundir, settings)
        config.passthrough = list(TestbedHost.DEVICES[:devices])
        return Guest(Testbed.ensure(OFFLINE).host(rundir, host_append), config, limit)

    def direct(self, limit: float = LIMIT, nvme: bool = False, **settings) -> Guest:
        """A guest on this machine's QEMU, all of its devices emulated, with an NVMe if asked for. `patched`: its kernel
        has the series."""
        rundir = self.run_directory()
        settings.setdefault("kvm", kvm_runs_guests())
        config = self._config(rundir, settings)
        host = LocalHost(rundir, products.ensure_qemu(OFFLINE).binary)
        if nvme:
            host.add_nvme(config, TestbedOptions.disk_bytes)
        return Guest(host, config, limit)

    def do(self, guest: Guest, command: str, phases=None) -> dict:
        """A command to the guest's agent that must succeed."""
        result: AgentResult = guest.command(command, phases)
        self.assertTrue(result.ok, f"{command}: {result.error} {result.data}; logs: {guest.host.rundir}")
        return result.data

    def run_script(self, *words: str, timeout: float = LIMIT) -> subprocess.CompletedProcess:
        """One of the commands in scripts/, as a user would call it."""
        return subprocess.run([SCRIPTS / words[0], *words[1:]], capture_output=True, text=True,
                              timeout=timeout, stdin=subprocess.DEVNULL, check=False)
