# SPDX-License-Identifier: GPL-2.0-or-later
"""run-vm: boots a guest with a passed-through device behind a chosen vIOMMU."""

import contextlib
import dataclasses
import json
import math
import os
import re
import sys
import time
from pathlib import Path

from umbra import project
from umbra.building.kernel_image import check_bzimage
from umbra.commands import common
from umbra.errors import ExitCode, UserError
from umbra.vm import agent_commands, launch
from umbra.vm.agent_commands import POLICIES
from umbra.vm.config import MAX_PASSTHROUGH, VIOMMUS
from umbra.vm.guest import AgentResult, fresh_directory
from umbra.vm.launch import LaunchOptions

_MOST_MEMORY = 1 << 46  # bytes; more than a q35 machine takes

EPILOG = """\
examples:
  scripts/run-vm                                   the testbed, checks that the device works
  scripts/run-vm --shell                           a shell in the guest; Ctrl-A X ends it
  scripts/run-vm --policy fq-domain --run 'workload hold pages_mapped=4096'
  sudo scripts/run-vm --vfio 0000:3b:00.0 --mem 4G --kernel my/bzImage
  scripts/run-vm --dry-run --iommufd -- -trace 'vtd_*'

exit codes: 0 pass, 1 the guest failed, 2 usage, 3 time limit, 4 this machine cannot do it
What the commands of --run are: tests/guest/README.md.
UMBRA_EMULATE=1 in the environment emulates the CPU in place of using KVM.
"""


@dataclasses.dataclass
class CommandLine(LaunchOptions):
    destroy_data: bool = False
    console: bool = False
    out: Path | None = None
    dry_run: bool = False
    json: bool = False


def parse(arguments: list[str]) -> CommandLine:
    own, extra = arguments, []
    if "--" in arguments:
        split = arguments.index("--")
        own, extra = arguments[:split], arguments[split + 1:]
    parser = common.Parser(prog="run-vm", epilog=EPILOG, description=(
        "Boots a guest with a passed-through device behind a chosen vIOMMU."))
    where = parser.add_argument_group("where the guest runs")
    place = where.add_mutually_exclusive_group()
    place.add_argument("--vfio", metavar="ADDRESS", action="append", default=[],
                       help="pass this PCI device of this machine through (repeatable); no check and no workload "
                       "writes to it unless --destroy-data is given (what --shell and `exec` do is yours)")
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
                       help="the vIOMMU (default: umbra; qemu-intel in a tree without the plugin)")
    guest.add_argument("--viommu-options", metavar="KEY=VALUE,…", default="",
                       help="further properties of the vIOMMU device")
    guest.add_argument("--kernel", type=Path, metavar="BZIMAGE",
                       help="a kernel image (default: the stock kernel built here)")
    guest.add_argument("--initrd", type=Path,
                       help="an initramfs (default: the guest image built here)")
    guest.add_argument("--append", default="", metavar="WORDS",
                       help="further words for the kernel command line; on the emulated testbed, loglevel=7 brings "
                       "back to the console what is less than an error (and takes some 15 s of the boot)")
    guest.add_argument("--mem", default="1G", metavar="SIZE", help="memory, such as 512M or 4G (default 1G)")
    guest.add_argument("--smp", type=int, default=1, metavar="N", help="virtual CPUs (default 1)")
    guest.add_argument("--policy", choices=POLICIES, help="flush policy to set in the guest")
    job = parser.add_argument_group("what it does")
    job.add_argument("--run", metavar="COMMAND", action="append", default=[],
                     help="command for the guest's agent (repeatable; default: a short check)")
    job.add_argument("--destroy-data", action="store_true",
                     help="with --vfio: allow workloads that overwrite the disk (verify, and fio with writes)")
    job.add_argument("--force", action="store_true",
                     help="with --vfio: take a device away that this machine uses (mounted, default route, screen)")
    job.add_argument("--shell", action="store_true", help="an interactive shell on the console")
    job.add_argument("--console", action="store_true", help="show the guest's console as it runs")
    job.add_argument("--timeout", type=float, default=None, metavar="SECONDS",
                     help="end the guest after this time (default 300; with --shell: none)")
    job.add_argument("--out", type=Path, metavar="FOLDER",
                     help="where logs go (default: below build/run-vm/)")
    job.add_argument("--dry-run", action="store_true", help="print the QEMU command lines and stop")
    job.add_argument("--json", action="store_true", help="print the agent's results as JSON lines")
    common.add_common_options(job)
    options = parser.parse_args(own, CommandLine())
    options.extra = extra
    check(options)
    return options


def check(options: CommandLine) -> None:
    if not re.fullmatch(r"[1-9][0-9]*[KMGkmg]?", options.mem):
        raise UserError(ExitCode.USAGE, f"--mem {options.mem}: not a size.", "Write 512M or 4G.")
    if not 1 <= options.smp <= 255:
        raise UserError(ExitCode.USAGE, f"--smp {options.smp}: 1 to 255.")
    if launch.bytes_of(options.mem) > _MOST_MEMORY:
        raise UserError(ExitCode.USAGE, f"--mem {options.mem}: more than {_MOST_MEMORY >> 40} TiB.")
    agent_commands.check_commands(options.run)
    if options.timeout is not None and not 0 < options.timeout < math.inf:
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
    if options.vfio:
        check_devices(options)


def check_devices(options: CommandLine) -> None:
    """Refuses what cannot be done with this machine's devices, before any of them is unbound."""
    options.vfio = [address.lower() for address in options.vfio]
    if len(options.vfio) > MAX_PASSTHROUGH:
        raise UserError(ExitCode.USAGE, f"--vfio names {len(options.vfio)} devices, and the guest has slots for "
                        f"{MAX_PASSTHROUGH}.")
    for address in options.vfio:
        if options.vfio.count(address) > 1:
            raise UserError(ExitCode.USAGE, f"--vfio names {address} twice.")
    for option, given in (("--devices", options.devices != 1), ("--host-append", options.host_append)):
        if given:
            raise UserError(ExitCode.USAGE, f"{option} is for the testbed and does not go with --vfio.")
    if not options.destroy_data:
        agent_commands.refuse_writes(options.run)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    config, testbed = launch.plan(options)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    rundir = options.out or project.TREE / "build/run-vm" / f"{stamp}-{os.getpid()}"
    if options.out is not None and rundir.exists() and any(rundir.iterdir()):
        raise UserError(ExitCode.USAGE, f"--out {rundir}: not empty.")
    if options.dry_run:
        print("\n".join(launch.command_lines(options, config, testbed, rundir)))
        return ExitCode.PASS
    rundir = fresh_directory(rundir).resolve()
    host = launch.build(options, config, testbed, rundir)
    started = time.monotonic()

    def say(text: str) -> None:
        if not options.json:
            print(f"[{time.monotonic() - started:6.1f} s] {text}", file=sys.stderr, flush=True)

    def tell(result: AgentResult) -> None:
        if options.json:
            print(json.dumps({"command": result.command, "status": result.status, "error": result.error,
                              "data": result.data}), flush=True)
            return
        say(f"{'ok  ' if result.ok else 'FAIL'} {result.command}" + (f": {result.error}" if result.error else ""))
        for key, value in result.data.items():
            print(f"    {key}: {value}")

    def echo(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    # QEMU ends before its devices go back to the host's drivers.
    with launch.devices_of(config, testbed), contextlib.closing(host):
        say(f"booting: {config.viommu}, {'iommufd' if config.iommufd else 'type1'}, "
            f"{', '.join(config.passthrough)}; logs in {rundir}")
        return launch.run(options, host, config, say, tell, echo if options.console or options.shell else None)


if __name__ == "__main__":
    common.run(lambda: main(sys.argv[1:]), "run-vm")
