# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a guest's QEMU runs: on this machine, or in the testbed host.

Both offer the same few operations, so that everything above them (booting a guest, talking to its
agent, counting) is written once.
"""

import abc
import dataclasses
import shlex
import shutil
import subprocess
import time
from pathlib import Path

from umbra.building import cpio
from umbra.errors import ExitCode, UserError
from umbra.vm.config import CONFIGS, FIRMWARE, GuestConfig, arguments_of
from umbra.vm.event_log import EventLog
from umbra.vm.host_agent import HostAgent, decoded, encoded
from umbra.vm.ports import Port, PortClosed, PortTimeout
from umbra.vm.process import Child, tail

# Trace event of an emulated IOMMU -> the kind of invalidation that it stands for.
_IOMMU_EVENTS = {
    "vtd_inv_desc_iotlb_global": "iotlb_global",
    "vtd_inv_desc_iotlb_domain": "iotlb_domain",
    "vtd_inv_desc_iotlb_pages": "iotlb_page",
}


@dataclasses.dataclass
class Finished:
    status: int
    stdout: str
    stderr: str


class GuestHost(abc.ABC):
    """Runs one guest at a time. `rundir` keeps its logs on this machine."""

    def __init__(self, rundir: Path):
        self.rundir = rundir

    @abc.abstractmethod
    def start(self, config: GuestConfig, deadline: float) -> None:
        """Makes the host ready for a guest with this configuration (but does not start it)."""

    @abc.abstractmethod
    def guest_command_line(self, config: GuestConfig) -> list[str]:
        """The QEMU command that runs such a guest here."""

    @abc.abstractmethod
    def run(self, script: str, timeout: float = 60.0) -> Finished:
        """Runs a shell script on the host, in the guest's working folder."""

    @abc.abstractmethod
    def start_guest(self, words: list[str]) -> None:
        """Starts QEMU in the background."""

    @abc.abstractmethod
    def guest_exit_status(self) -> int | None:
        """None unless the guest's QEMU is known to have ended."""

    @abc.abstractmethod
    def stop_guest(self) -> None:
        """Ends the guest's QEMU."""

    @abc.abstractmethod
    def port(self, name: str, deadline: float) -> Port:
        """One of the guest's ports: `guest`, `console` or `qmp`."""

    def iommu_invalidations(self) -> dict[str, int | None]:
        """Invalidations of this host's own IOMMU so far, by kind; None for what cannot be counted here."""
        return dict.fromkeys(_IOMMU_EVENTS.values())

    @abc.abstractmethod
    def close(self) -> None:
        """Ends everything that was started. May be called twice."""

    @abc.abstractmethod
    def describe_failure(self) -> str:
        """What the host itself has to say, when a guest did not come up."""


class LocalHost(GuestHost):
    """The guest runs on this machine, directly."""

    def __init__(self, rundir: Path, qemu: Path):
        super().__init__(rundir)
        self._qemu = qemu
        self._child: Child | None = None
        self._ports: dict[str, Port] = {}

    def add_nvme(self, config: GuestConfig, disk_bytes: int) -> None:
        """`config` gets an NVMe controller that QEMU emulates, with a new disk of zeroes, `disk.raw` in `rundir`."""
        with open(self.rundir / "disk.raw", "wb") as disk:
            disk.truncate(disk_bytes)
        config.extra += ["-blockdev", "driver=raw,node-name=disk,file.driver=file,file.filename=disk.raw",
                         "-device", "nvme,drive=disk,serial=UMBRA0,bus=pcie.0,addr=5"]

    def start(self, config: GuestConfig, deadline: float) -> None:
        for name in ("guest", "console", "qmp"):
            self._ports[name] = Port.open_fifos(self.rundir / f"{name}.port")

    def guest_command_line(self, config: GuestConfig) -> list[str]:
        files = {name: str(path) for name, path in config.files().items()}
        return config.command_line(str(self._qemu), files.__getitem__)

    def run(self, script: str, timeout: float = 60.0) -> Finished:
        try:
            done = subprocess.run(["sh", "-c", script], cwd=self.rundir, capture_output=True,
                                  timeout=timeout, stdin=subprocess.DEVNULL, check=False)
        except subprocess.TimeoutExpired:
            return Finished(124, "", f"not done after {timeout:.0f} s")
        return Finished(done.returncode, done.stdout.decode("utf-8", "replace"),
                        done.stderr.decode("utf-8", "replace"))

    def start_guest(self, words: list[str]) -> None:
        self._child = Child(words, self.rundir / "qemu.log", self.rundir)

    def guest_exit_status(self) -> int | None:
        return self._child.exit_status() if self._child else None

    def guest_cpu_seconds(self) -> float:
        """What the guest's QEMU has taken so far, while it runs."""
        assert self._child is not None
        return self._child.cpu_seconds()

    def stop_guest(self) -> None:
        if self._child:
            self._child.stop()

    def port(self, name: str, deadline: float) -> Port:
        return self._ports[name]

    def close(self) -> None:
        self.stop_guest()
        for port in self._ports.values():
            port.close()
        self._ports.clear()

    def describe_failure(self) -> str:
        return tail(self.rundir / "qemu.log")


@dataclasses.dataclass
class TestbedOptions:
    qemu: Path
    kernel: Path
    initrd: Path
    kvm: bool = False                     # L0 can use KVM (nested); else TCG
    append: str = ""                      # further words for the testbed host's kernel
    disk_bytes: int = 256 * 1024 * 1024   # size of each emulated NVMe namespace


class TestbedHost(GuestHost):
    """The guest runs in a VM that plays the VFIO host (ARCHITECTURE.md, the testbed).

    Device addresses are fixed by the slots in testbed-host.cfg.
    """

    # The emulated TSC-deadline timer loses interrupts on two CPUs, and L1 or L2 hangs. The check of the timer at boot
    # panics if the emulator has no time just then.
    KERNEL_COMMAND_LINE = "console=ttyS0 panic=-1 intel_iommu=on lapic=notscdeadline no_timer_check"
    DEVICES = ("0000:00:10.0", "0000:00:11.0")
    WORKDIR = "/umbra"

    def __init__(self, rundir: Path, options: TestbedOptions):
        super().__init__(rundir)
        self._options = options
        self._child: Child | None = None
        self._agent: HostAgent | None = None
        self._iommu_log = EventLog(rundir / "host-iommu.log", _IOMMU_EVENTS)
        self._ports: dict[str, Port] = {}
        self._qemu_log = ""
        self.ready: dict = {}

    def command_line(self) -> list[str]:
        options = self._options
        words = [str(options.qemu)]
        for directory in FIRMWARE:
            words += ["-L", directory]
        words += ["-readconfig", str(CONFIGS / "testbed-host.cfg")]
        words += arguments_of("testbed-host")
        if options.kvm:
            words += ["-accel", "kvm", "-cpu", "host", "-machine", "kernel-irqchip=split"]
        command_line = " ".join(filter(None, [self.KERNEL_COMMAND_LINE, options.append]))
        return words + ["-kernel", str(options.kernel), "-initrd", "host.initrd",
                        "-append", command_line]

    def guest_command_line(self, config: GuestConfig) -> list[str]:
        nested = dataclasses.replace(config, nested=not self._options.kvm)
        return nested.command_line("/usr/bin/qemu-system-x86_64")

    def start(self, config: GuestConfig, deadline: float) -> None:
        for name in ("disk0.raw", "disk1.raw"):
            with open(self.rundir / name, "wb") as disk:
                disk.truncate(self._options.disk_bytes)
        self._write_initrd(config.files())
        self._child = Child(self.command_line(), self.rundir / "host-qemu.log", self.rundir)
        try:
            # All ports are connected before the guest starts: a virtio-serial port without a peer
            # reads as end of file inside the testbed host.
            self._agent = HostAgent(Port.connect(self.rundir / "host.sock", min(deadline, _after(20))))
            for name in ("guest", "console", "qmp"):
                self._ports[name] = Port.connect(self.rundir / f"{name}.sock",
                                                 min(deadline, _after(20)))
            self.ready = self._agent.ready(min(deadline, _after(180)))
        except (PortTimeout, PortClosed):
            raise self._not_up() from None
        if not self.ready.get("kvm"):
            raise UserError(ExitCode.ENVIRONMENT, "The testbed host has no /dev/kvm.",
                            "Its kernel needs KVM_AMD, its CPU SVM (qemu-configs/testbed-host.args).")
        for address in config.passthrough:
            self._bind(address)

    def _write_initrd(self, files: dict[str, Path]) -> None:
        """The image for all runs, and behind it an archive with this run's files. The kernel
        unpacks one after the other."""
        target = self.rundir / "host.initrd"
        shutil.copyfile(self._options.initrd, target)
        with open(target, "ab") as out:
            archive = cpio.Writer(out, start=target.stat().st_size)
            archive.directory(self.WORKDIR)
            for name, path in sorted(files.items()):
                archive.file(f"{self.WORKDIR}/{name}", path.read_bytes())
            for name in ("guest", "console", "qmp"):
                archive.symlink(f"{self.WORKDIR}/{name}.port", f"/dev/virtio-ports/umbra.{name}")
            archive.finish()

    def _bind(self, address: str) -> None:
        done = self.run(f"d=/sys/bus/pci/devices/{address}\n"
                        "[ -e $d/driver ] && echo $(basename $d) > $d/driver/unbind\n"
                        "echo vfio-pci > $d/driver_override && "
                        "echo $(basename $d) > /sys/bus/pci/drivers_probe && "
                        "[ $(basename $(readlink $d/driver)) = vfio-pci ]")
        if done.status != 0:
            raise UserError(ExitCode.ENVIRONMENT,
                            f"The testbed host could not bind {address} to vfio-pci: "
                            f"{done.stderr.strip() or 'no reason given'}.")

    def run(self, script: str, timeout: float = 60.0) -> Finished:
        script = encoded(f"cd {self.WORKDIR}\n{script}")
        reply = self._ask(f"run {max(1, int(timeout))} {script}", timeout + 15)
        status = reply.get("exit_status")
        return Finished(124 if status is None else int(status),
                        decoded(reply.get("stdout")), decoded(reply.get("stderr")))

    def start_guest(self, words: list[str]) -> None:
        script = f"cd {self.WORKDIR}\nexec {shlex.join(words)}"
        reply = self._ask(f"spawn qemu {encoded(script)}", 30)
        if reply.get("status") != 0:
            raise UserError(ExitCode.ENVIRONMENT,
                            f"The testbed host did not start QEMU: {reply.get('error')}.")
        self._qemu_log = reply.get("stderr_file", "")

    def guest_exit_status(self) -> int | None:
        if self._child is None or self._agent is None or self._child.exit_status() is not None:
            return -1
        try:
            return self._agent.job_exit_status("qemu")
        except PortClosed:
            return None  # the host's QEMU is about to end

    def stop_guest(self) -> None:
        self._ask("kill qemu", 30)

    def port(self, name: str, deadline: float) -> Port:
        return self._ports[name]

    def iommu_invalidations(self) -> dict[str, int | None]:
        return dict(self._iommu_log.totals())

    def close(self) -> None:
        if self._child:
            self._child.stop()
        for port in [self._agent, *self._ports.values()]:
            if port:
                port.close()
        self._agent, self._ports = None, {}
        for name in ("host.initrd", "disk0.raw", "disk1.raw"):
            (self.rundir / name).unlink(missing_ok=True)

    def describe_failure(self) -> str:
        try:
            log = self.run(f"tail -c 4000 {shlex.quote(self._qemu_log)}", 20).stdout
        except UserError:
            log = ""
        return log.strip() or tail(self.rundir / "host-console.log")

    def _ask(self, line: str, timeout: float) -> dict:
        assert self._agent is not None
        try:
            return self._agent.ask(line, timeout)
        except (PortTimeout, PortClosed):
            raise UserError(ExitCode.TIME_LIMIT,
                            f"The testbed host stopped answering (command {line.split()[0]!r}). "
                            f"Its console ends:\n{tail(self.rundir / 'host-console.log')}") from None

    def _not_up(self) -> UserError:
        status = self._child.exit_status() if self._child else None
        if status is not None:
            return UserError(ExitCode.ENVIRONMENT,
                             f"The testbed host's QEMU ended with status {status}:\n"
                             f"{tail(self.rundir / 'host-qemu.log')}")
        return UserError(ExitCode.TIME_LIMIT,
                         "The testbed host did not come up in time. Its console ends:\n"
                         f"{tail(self.rundir / 'host-console.log')}")


def machine_has_iommu() -> bool:
    """True if this kernel has put devices into IOMMU groups."""
    groups = Path("/sys/kernel/iommu_groups")
    return groups.is_dir() and any(groups.iterdir())


def _after(seconds: float) -> float:
    return time.monotonic() + seconds
