# SPDX-License-Identifier: GPL-2.0-or-later
"""Launches a guest with passed-through devices, here or on the testbed, and runs the agent's commands in it."""

import dataclasses
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from umbra.building import products
from umbra.errors import ExitCode, UserError
from umbra.vm import agent_commands, console, vfio
from umbra.vm.config import GuestConfig, kvm_runs_guests
from umbra.vm.guest import AgentResult, Guest
from umbra.vm.host import GuestHost, LocalHost, TestbedHost, TestbedOptions, machine_has_iommu
from umbra.vm.testbed import Testbed

_LIMIT = 300.0  # seconds for the life of a guest without a shell
_NO_LIMIT = 365 * 86400.0


@dataclasses.dataclass
class LaunchOptions:
    """What to launch. None stands for the usual one, an empty `run` for a check that suits the devices.

    `vfio`: PCI addresses on this machine; without any, `devices` of the testbed's. `mem`: a number and K, M or G.
    `extra`: further words for QEMU. `timeout`: seconds. `force`: take devices that this machine uses.
    """
    vfio: list[str] = dataclasses.field(default_factory=list)
    force: bool = False
    testbed: bool = False
    devices: int = 1
    iommufd: bool = False
    host_append: str = ""
    viommu: str | None = None
    viommu_options: str = ""
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    mem: str = "1G"
    smp: int = 1
    policy: str | None = None
    run: list[str] = dataclasses.field(default_factory=list)
    shell: bool = False
    timeout: float | None = None
    extra: list[str] = dataclasses.field(default_factory=list)
    offline: bool = False
    update: bool = False


def bytes_of(size: str) -> int:
    unit = size[-1].upper()
    scale = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(unit)
    return int(size[:-1]) * scale if scale else int(size) << 20


def plan(options: LaunchOptions) -> tuple[GuestConfig, bool]:
    """The guest's configuration, and whether it runs on the testbed."""
    testbed = options.testbed or (not options.vfio and not machine_has_iommu())
    if not testbed and not options.vfio:
        raise UserError(ExitCode.USAGE, "Which device?",
                        "This machine has an IOMMU: name one with --vfio, or use --testbed.")
    for address in options.vfio:
        vfio.check_device(address)
        if not options.force:
            vfio.refuse_if_in_use(address)
    viommu = options.viommu or ("umbra" if products.plugin_sources_present() else "qemu-intel")
    append = options.append
    if not testbed:
        append = f"umbra.device={agent_commands.guest_address(0)} {append}".strip()
    if options.shell:
        append = f"{append} umbra.shell".strip()
    config = GuestConfig(
        viommu=viommu, viommu_options=options.viommu_options, append=append, memory=options.mem,
        cpus=options.smp, iommufd=options.iommufd, extra=options.extra,
        passthrough=options.vfio or list(TestbedHost.DEVICES[:options.devices]),
        kvm=testbed or kvm_runs_guests())
    return config, testbed


def build(options: LaunchOptions, config: GuestConfig, testbed: bool, rundir: Path) -> GuestHost:
    """Builds what is missing and fills its places into the configuration."""
    build_options = products.BuildOptions(offline=options.offline, update=options.update)
    built = Testbed.ensure(build_options)
    config.kernel = options.kernel or built.kernel.bzimage
    config.initrd = options.initrd or built.images.guest_initrd_for(None if options.kernel else built.kernel,
                                                                    rundir)
    if config.viommu == "umbra":
        config.plugin = products.ensure_plugin(build_options)
    if testbed:
        return built.host(rundir, options.host_append)
    return LocalHost(rundir, built.qemu.binary)


def command_lines(options: LaunchOptions, config: GuestConfig, testbed: bool, rundir: Path) -> list[str]:
    """What would run, with a name such as not-built/QEMU_BIN for each part that is still to be built."""
    places = {name: path or Path("not-built") / name for name, path in products.built().items()}
    config.kernel = options.kernel or places["KERNEL_STOCK"]
    config.initrd = options.initrd or places["GUEST_INITRD"]
    config.plugin = places["UMBRA_PLUGIN"] if config.viommu == "umbra" else None
    if not testbed:
        return [shlex.join(LocalHost(rundir, places["QEMU_BIN"]).guest_command_line(config))]
    host = TestbedHost(rundir, TestbedOptions(places["QEMU_BIN"], places["KERNEL_STOCK"], places["HOST_INITRD"],
                                              kvm_runs_guests(), options.host_append))
    return ["# testbed host", shlex.join(host.command_line()), "# guest, inside it",
            shlex.join(host.guest_command_line(config))]


@contextmanager
def devices_of(config: GuestConfig, testbed: bool) -> Iterator[None]:
    """Holds this machine's devices bound to vfio-pci. Those of the testbed are the testbed host's to bind."""
    if testbed:
        yield
        return
    vfio.check_memory_lock(bytes_of(config.memory), len(config.passthrough))
    binding = vfio.Binding([vfio.check_device(address) for address in config.passthrough])
    try:
        yield
    finally:
        binding.close()


def run(options: LaunchOptions, host: GuestHost, config: GuestConfig, say: Callable[[str], None],
        tell: Callable[[AgentResult], None], echo: Callable[[str], object] | None) -> ExitCode:
    """Boots the guest, does what `options` say, and turns it off. `say`: progress. `tell`: each command's result.
    `echo`: what the guest writes to its console."""
    limit = options.timeout or (_NO_LIMIT if options.shell else _LIMIT)
    with Guest(host, config, limit, echo) as guest:
        if options.shell:
            return console.join(guest)
        if options.initrd is not None and not options.run:
            _wait_end(guest)
            say("the guest ended")
            return ExitCode.PASS
        ready = guest.wait_ready()
        say(f"guest is up: Linux {ready.get('kernel')}, {ready.get('cpus')} CPU(s)")
        failed = 0
        for line in _commands(options, config):
            result = guest.command(line)
            tell(result)
            failed += not result.ok
        guest.power_off()
        say("guest is off")
    return ExitCode.GUEST_FAILED if failed else ExitCode.PASS


def _commands(options: LaunchOptions, config: GuestConfig) -> list[str]:
    usual = agent_commands.read_only_check(len(config.passthrough)) if options.vfio else agent_commands.TESTBED_CHECK
    return [*([f"policy {options.policy}"] if options.policy else []), *(options.run or usual)]


def _wait_end(guest: Guest) -> None:
    """The end of a guest with an initramfs of the user's own, which has no agent."""
    status = guest.wait_end()
    if guest.panicked() or status != 0:
        raise UserError(ExitCode.GUEST_FAILED, f"The guest {'panicked' if guest.panicked() else 'failed'} "
                        f"(QEMU's status {status}); console: {guest.console_log}")
