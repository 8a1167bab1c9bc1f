# SPDX-License-Identifier: GPL-2.0-or-later
"""The machines in qemu-configs/ as QEMU command lines."""

import dataclasses
import os
import shlex
from collections.abc import Callable
from pathlib import Path

from umbra.errors import ExitCode, UserError
from umbra.project import TREE

CONFIGS = TREE / "qemu-configs"
VIOMMUS = ("umbra", "qemu-intel", "qemu-virtio", "none")
MAX_PASSTHROUGH = 4
# For guests that measure or test on the testbed: VFIO clears and pins all of a guest's memory before it starts, which
# takes an emulated host some 4 s a GiB.
TESTBED_MEMORY = "512M"

# Where Debian puts firmware; QEMU looks through them in this order.
FIRMWARE = ("/usr/share/seabios", "/usr/share/qemu")


def arguments_of(name: str) -> list[str]:
    """The options in qemu-configs/NAME.args: one option with its value a line, # for comments."""
    words: list[str] = []
    for line in (CONFIGS / f"{name}.args").read_text().splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            words += shlex.split(line)
    return words


def kvm_runs_guests(device: Path = Path("/dev/kvm"), cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """True if KVM is of use here: the device can exist on CPUs that give us neither VMX nor SVM.

    Raises UserError if it is of use and this user may not open it. UMBRA_EMULATE=1 in the environment forgoes KVM.
    """
    if os.environ.get("UMBRA_EMULATE", "") not in ("", "0"):
        return False
    try:
        flags = cpuinfo.read_text().split()
    except OSError:
        return False
    if not device.exists() or not {"vmx", "svm"} & set(flags):
        return False
    if not os.access(device, os.R_OK | os.W_OK):
        raise UserError(ExitCode.ENVIRONMENT, f"This machine has {device}, and this user may not open it.",
                        "Join the group kvm (as root: adduser USER kvm; then log in anew), or set UMBRA_EMULATE=1 for "
                        "emulation, which is many times slower.")
    return True


@dataclasses.dataclass
class GuestConfig:
    """Everything that decides the guest's command line."""
    viommu: str = "umbra"
    kernel: Path = Path()
    initrd: Path | None = None
    append: str = ""
    memory: str = "1G"
    cpus: int = 1
    passthrough: list[str] = dataclasses.field(default_factory=list)  # PCI addresses on the host
    # Where each of them goes, as properties of -device; by default each into a slot of its own. `bridges` are
    # further bridges to put them behind, as arguments of -device.
    places: list[str] = dataclasses.field(default_factory=list)
    bridges: list[str] = dataclasses.field(default_factory=list)
    iommufd: bool = False
    viommu_options: str = ""                 # further properties of the vIOMMU, comma-separated
    plugin: Path | None = None
    kvm: bool = True
    nested: bool = False                     # the host of the guest is itself emulated
    extra: list[str] = dataclasses.field(default_factory=list)

    def check(self) -> None:
        if len(self.passthrough) > MAX_PASSTHROUGH:
            raise UserError(ExitCode.USAGE, f"{len(self.passthrough)} devices are more than the "
                            f"{MAX_PASSTHROUGH} slots in qemu-configs/guest.cfg.")
        if self.places and len(self.places) != len(self.passthrough):
            raise UserError(ExitCode.USAGE, f"{len(self.places)} places for {len(self.passthrough)} devices.")
        if self.viommu == "umbra" and self.plugin is None:
            raise UserError(ExitCode.ENVIRONMENT, "The umbra plugin is not built.",
                            "Run scripts/build-plugin, or choose --viommu qemu-intel.")

    def kernel_command_line(self) -> str:
        words = ["console=ttyS0", "panic=-1"]
        if self.viommu in ("umbra", "qemu-intel"):
            words.append("intel_iommu=on")
        if self.nested:
            # Under emulation the TSC-deadline timer loses interrupts, and the guest hangs.
            words.append("lapic=notscdeadline")
            # Every access to a port leaves the guest for QEMU in the host, which takes a quarter of a millisecond. So
            # the console, where each character is one, gets no more than errors (and all that follows an oops); and
            # Linux does not look for further PCI root buses, as it does for every bus number.
            words += ["loglevel=4", "pci=lastbus=0"]
            if self.cpus > 1:
                # With several CPUs a one-shot timer's interrupt is lost as well, now and then, and its CPU sleeps for
                # good. After a lost tick of a periodic timer comes the next.
                words += ["nohz=off", "highres=off"]
        if not self.kvm:
            # Linux panics if the timer does not tick in time at boot, as on a busy machine's emulator. On KVM it
            # does without that check by itself.
            words.append("no_timer_check")
        return " ".join(words + ([self.append] if self.append else []))

    def files(self) -> dict[str, Path]:
        """The files that QEMU needs where it runs, by the name that the command line uses."""
        wanted = {"bzImage": self.kernel, "guest.cfg": CONFIGS / "guest.cfg",
                  f"viommu-{self.viommu}.cfg": CONFIGS / f"viommu-{self.viommu}.cfg"}
        if self.initrd is not None:
            wanted["initrd"] = self.initrd
        if self.plugin is not None and self.viommu == "umbra":
            wanted["umbra.so"] = self.plugin
        return wanted

    def command_line(self, qemu: str, place: Callable[[str], str] = str) -> list[str]:
        """The QEMU command. `place` turns a name from files() into the path that QEMU is to use."""
        words = [qemu]
        for directory in FIRMWARE:
            words += ["-L", directory]
        if self.viommu == "umbra":
            # A name without a slash would be searched for in the system's libraries.
            words += ["-plugin", f"file={os.path.join('.', place('umbra.so'))}"]
        # The vIOMMU comes first: devices find it when they are realized.
        words += ["-readconfig", place(f"viommu-{self.viommu}.cfg"), "-readconfig", place("guest.cfg")]
        words += arguments_of("guest") + arguments_of("guest-kvm" if self.kvm else "guest-tcg")
        if self.nested:
            words += arguments_of("guest-nested")
        words += ["-m", self.memory, "-smp", str(self.cpus)]
        for option in filter(None, self.viommu_options.split(",")):
            key, _, value = option.partition("=")
            words += ["-set", f"device.viommu.{key}={value or 'on'}"]
        words += ["-kernel", place("bzImage")]
        if self.initrd is not None:
            words += ["-initrd", place("initrd")]
        words += ["-append", self.kernel_command_line()]
        for bridge in self.bridges:
            words += ["-device", bridge]
        for index, address in enumerate(self.passthrough):
            slot = self.places[index] if self.places else f"bus=slot{index}"
            device = f"vfio-pci,id=passthrough{index},{slot},host={address}"
            if self.iommufd:
                words += ["-object", f"iommufd,id=iommufd{index}"]
                device += f",iommufd=iommufd{index}"
            words += ["-device", device]
        return words + self.extra
