# SPDX-License-Identifier: GPL-2.0-or-later
"""run-vm: boots a guest with a passed-through device behind a chosen vIOMMU."""

import argparse
import os
import re
import shlex
import sys
import termios
import threading
import time
import tty
from pathlib import Path

from umbra import command, project
from umbra.building import products
from umbra.building.kernel import check_bzimage
from umbra.errors import ExitCode, UserError
from umbra.vm import agent_commands, vfio
from umbra.vm.config import VIOMMUS, GuestConfig, kvm_runs_guests
from umbra.vm.guest import AgentResult, Guest, fresh_directory
from umbra.vm.host import GuestHost, LocalHost, TestbedHost, TestbedOptions, machine_has_iommu
from umbra.vm.testbed import Testbed

POLICIES = ("strict", "fq-domain", "fq-single", "fq-range")

EPILOG = """\
examples:
  scripts/run-vm                                   the testbed, checks that the device works
  scripts/run-vm --shell                           a shell in the guest; Ctrl-A X ends it
  scripts/run-vm --policy fq-domain --run 'workload hold pages_mapped=4096'
  sudo scripts/run-vm --vfio 0000:3b:00.0 --mem 4G --kernel my/bzImage
  scripts/run-vm --dry-run --iommufd -- -trace 'vtd_*'

exit codes: 0 pass, 1 the guest failed, 2 usage, 3 time limit, 4 this machine cannot do it
What the commands of --run are: tests/guest/README.md.
"""


def parse(arguments: list[str]) -> argparse.Namespace:
    own, extra = arguments, []
    if "--" in arguments:
        split = arguments.index("--")
        own, extra = arguments[:split], arguments[split + 1:]
    parser = command.Parser(prog="run-vm", epilog=EPILOG, description=(
        "Boots a guest with a passed-through device behind a chosen vIOMMU."))
    where = parser.add_argument_group("where the guest runs")
    place = where.add_mutually_exclusive_group()
    place.add_argument("--vfio", metavar="ADDRESS", action="append", default=[],
                       help="pass this PCI device of this machine through (repeatable); nothing is written to it "
                       "unless --destroy-data is given")
    place.add_argument("--testbed", action="store_true",
                       help="run inside the nested testbed (default where there is no IOMMU)")
    where.add_argument("--devices", type=int, choices=(1, 2), default=1,
                       help="testbed: how many of its NVMe devices to pass through (default 1)")
    where.add_argument("--iommufd", action="store_true",
                       help="use iommufd instead of the type1 container")
    where.add_argument("--host-append", metavar="WORDS", default="",
                       help="testbed: further words for the testbed host's kernel command line")
    guest = parser.add_argument_group("the guest")
    guest.add_argument("--viommu", choices=VIOMMUS, default=None,
                       help="default: umbra if it is built in this tree, else qemu-intel")
    guest.add_argument("--viommu-options", metavar="KEY=VALUE,…", default="",
                       help="further properties of the vIOMMU device")
    guest.add_argument("--kernel", type=Path, help="a bzImage (default: the stock kernel built here)")
    guest.add_argument("--initrd", type=Path,
                       help="an initramfs (default: the guest image built here)")
    guest.add_argument("--append", default="", metavar="WORDS",
                       help="further words for the kernel command line; on the emulated testbed, loglevel=7 brings "
                       "back to the console what is less than an error (and takes some 15 s of the boot)")
    guest.add_argument("--mem", default="1G", help="memory, e.g. 512M, 4G (default 1G)")
    guest.add_argument("--smp", type=int, default=1, metavar="N", help="virtual CPUs (default 1)")
    guest.add_argument("--policy", choices=POLICIES, help="flush policy to set in the guest")
    job = parser.add_argument_group("what it does")
    job.add_argument("--run", metavar="COMMAND", action="append", default=[],
                     help="command for the guest's agent (repeatable; default: a short check)")
    job.add_argument("--destroy-data", action="store_true",
                     help="with --vfio: allow workloads that overwrite the disk (verify, and fio with writes)")
    job.add_argument("--shell", action="store_true", help="an interactive shell on the console")
    job.add_argument("--console", action="store_true", help="show the guest's console as it runs")
    job.add_argument("--timeout", type=float, default=None, metavar="SECONDS",
                     help="end the guest after this time (default 300; with --shell: none)")
    job.add_argument("--out", type=Path, help="folder for logs (default: below build/run-vm/)")
    job.add_argument("--dry-run", action="store_true", help="print the QEMU command lines and stop")
    job.add_argument("--json", action="store_true", help="print the agent's results as JSON lines")
    command.add_common_options(job)
    options = parser.parse_args(own)
    options.extra = extra
    check(options)
    return options


def check(options: argparse.Namespace) -> None:
    if not re.fullmatch(r"[1-9][0-9]*[KMGkmg]?", options.mem):
        raise UserError(ExitCode.USAGE, f"--mem {options.mem}: not a size.", "Write 512M or 4G.")
    if not 1 <= options.smp <= 255:
        raise UserError(ExitCode.USAGE, f"--smp {options.smp}: 1 to 255.")
    if options.timeout is not None and options.timeout <= 0:
        raise UserError(ExitCode.USAGE, f"--timeout {options.timeout:g}: seconds, more than 0.")
    if options.shell and (options.run or options.policy):
        raise UserError(ExitCode.USAGE, "--shell does not go with --run or --policy.",
                        "In the shell, do it by hand.")
    for name in ("kernel", "initrd"):
        path = getattr(options, name)
        if path is not None and not path.is_file():
            raise UserError(ExitCode.USAGE, f"--{name} {path}: no such file.")
        # QEMU runs in another folder.
        setattr(options, name, path and path.resolve())
    if options.kernel is not None:
        check_bzimage(options.kernel)
    if options.vfio and not options.destroy_data:
        agent_commands.refuse_writes(options.run)


def bytes_of(size: str) -> int:
    unit = size[-1].upper()
    scale = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(unit)
    return int(size[:-1]) * scale if scale else int(size) << 20


def plan(options: argparse.Namespace) -> tuple[GuestConfig, bool]:
    """The guest's configuration, and whether it runs on the testbed."""
    testbed = options.testbed or (not options.vfio and not machine_has_iommu())
    if not testbed and not options.vfio:
        raise UserError(ExitCode.USAGE, "Which device?",
                        "This machine has an IOMMU: name one with --vfio, or use --testbed.")
    for address in options.vfio:
        vfio.check_device(address)
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


def build(options: argparse.Namespace, config: GuestConfig, testbed: bool, rundir: Path) -> GuestHost:
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


def print_command_lines(options: argparse.Namespace, config: GuestConfig, testbed: bool, rundir: Path) -> None:
    """What would run, with a name such as not-built/QEMU_BIN for each part that is still to be built."""
    places = {name: path or Path("not-built") / name for name, path in products.built().items()}
    config.kernel = options.kernel or places["KERNEL_STOCK"]
    config.initrd = options.initrd or places["GUEST_INITRD"]
    config.plugin = places["UMBRA_PLUGIN"] if config.viommu == "umbra" else None
    if testbed:
        host = TestbedHost(rundir, TestbedOptions(places["QEMU_BIN"], places["KERNEL_STOCK"], places["HOST_INITRD"],
                                                  kvm_runs_guests(), options.host_append))
        print("# testbed host\n" + shlex.join(host.command_line()) + "\n# guest, inside it")
    else:
        host = LocalHost(rundir, places["QEMU_BIN"])
    print(shlex.join(host.guest_command_line(config)))


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    config, testbed = plan(options)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    rundir = options.out or project.TREE / "build/run-vm" / f"{stamp}-{os.getpid()}"
    if options.out is not None and rundir.exists() and any(rundir.iterdir()):
        raise UserError(ExitCode.USAGE, f"--out {rundir}: not empty.")
    if options.dry_run:
        print_command_lines(options, config, testbed, rundir)
        return ExitCode.PASS
    rundir = fresh_directory(rundir).resolve()
    host = build(options, config, testbed, rundir)
    binding = None
    try:
        if not testbed:
            vfio.check_memory_lock(bytes_of(config.memory), len(config.passthrough))
            binding = vfio.Binding([vfio.check_device(a) for a in config.passthrough])
        return run(options, host, config)
    finally:
        host.close()
        if binding:
            binding.close()


def run(options: argparse.Namespace, host: GuestHost, config: GuestConfig) -> int:
    started = time.monotonic()

    def say(text: str) -> None:
        if not options.json:
            print(f"[{time.monotonic() - started:6.1f} s] {text}", file=sys.stderr, flush=True)

    say(f"booting: {config.viommu}, {'iommufd' if config.iommufd else 'type1'}, "
        f"{', '.join(config.passthrough)}; logs in {host.rundir}")
    limit = options.timeout or (365 * 86400 if options.shell else 300)
    echo = None
    if options.console or options.shell:
        echo = lambda text: (sys.stdout.write(text), sys.stdout.flush())  # noqa: E731
    with Guest(host, config, limit, echo) as guest:
        if options.shell:
            return interact(guest)
        if options.initrd is not None and not options.run:
            status = guest.wait_end()
            if guest.panicked() or status != 0:
                raise UserError(ExitCode.GUEST_FAILED,
                                f"The guest {'panicked' if guest.panicked() else 'failed'} "
                                f"(QEMU's status {status}); console: {guest.console_log}")
            say("the guest ended")
            return ExitCode.PASS
        ready = guest.wait_ready()
        say(f"guest is up: Linux {ready.get('kernel')}, {ready.get('cpus')} CPU(s)")
        default = agent_commands.read_only_check(len(config.passthrough)) if options.vfio else \
            agent_commands.TESTBED_CHECK
        commands = list(options.run or default)
        if options.policy:
            commands.insert(0, f"policy {options.policy}")
        failed = 0
        for line in commands:
            result = guest.command(line)
            report(options, result, say)
            failed += not result.ok
        guest.power_off()
        say("guest is off")
    return ExitCode.GUEST_FAILED if failed else ExitCode.PASS


def report(options: argparse.Namespace, result: AgentResult, say) -> None:
    if options.json:
        import json
        print(json.dumps({"command": result.command, "status": result.status,
                          "error": result.error, "data": result.data}), flush=True)
        return
    say(f"{'ok  ' if result.ok else 'FAIL'} {result.command}"
        + (f": {result.error}" if result.error else ""))
    for key, value in result.data.items():
        print(f"    {key}: {value}")


def interact(guest: Guest) -> int:
    """Joins the terminal to the guest's console. Ctrl-A X ends the guest."""
    interactive = sys.stdin.isatty()
    before = termios.tcgetattr(sys.stdin) if interactive else None
    if interactive:
        tty.setraw(sys.stdin)
    done = threading.Event()

    def pump() -> None:
        prefix = False
        while not done.is_set():
            data = os.read(sys.stdin.fileno(), 1)
            if not data:
                return
            if prefix and data in b"xX":
                done.set()
                return
            prefix = data == b"\x01" and not prefix
            if not prefix:
                guest.console_port.write(data, time.monotonic() + 10)

    threading.Thread(target=pump, daemon=True).start()
    try:
        while not done.is_set():
            if guest.host.guest_exit_status() is not None:
                break
            if time.monotonic() > guest.deadline:
                return ExitCode.TIME_LIMIT
            done.wait(0.5)
        return ExitCode.GUEST_FAILED if guest.panicked() else ExitCode.PASS
    finally:
        if before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


if __name__ == "__main__":
    command.run(lambda: main(sys.argv[1:]), "run-vm")
