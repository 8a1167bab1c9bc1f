# SPDX-License-Identifier: GPL-2.0-or-later
"""measure: what caching mode costs, for each vIOMMU, flush policy, VFIO backend and workload."""

import dataclasses
import json
import sys
from pathlib import Path

from umbra.commands import common
from umbra.errors import ExitCode, UserError
from umbra.measuring import results
from umbra.measuring.plan import BACKENDS, DEFAULT_BACKENDS, POLICIES, VIOMMUS, MeasureOptions, workloads
from umbra.measuring.session import Session

EPILOG = """\
examples:
  scripts/measure --quick                          one workload, both policies
  scripts/measure                                  everything, under 15 minutes
  scripts/measure --viommu qemu-intel --backend type1 --workload 'hold-*' --repeat 3
  scripts/measure --report build/measure/DIR/result.json --markdown

Counts are those of the counted round; `ops` is how many operations the guest did in it. VFIO calls
are counted in the VFIO host's kernel, host invalidations at the testbed's own IOMMU. A policy that the
guest's kernel or the vIOMMU's driver does not know is skipped and named at the end.
exit codes: 0 pass, 1 a guest failed, 2 usage, 3 time limit, 4 this machine cannot do it
"""


@dataclasses.dataclass
class CommandLine(MeasureOptions):
    report: Path | None = None
    markdown: bool = False
    json: bool = False
    list: bool = False


def parse(arguments: list[str]) -> CommandLine:
    parser = common.Parser(prog="measure", epilog=EPILOG, description=(
        "Measures what caching mode costs, for each vIOMMU, flush policy, backend and workload."))
    parser.add_argument("--quick", action="store_true", help="measure one workload on type1 only")
    parser.add_argument("--viommu", action="append", default=[], choices=VIOMMUS,
                        help="a vIOMMU (repeatable; default: umbra and qemu-intel)")
    parser.add_argument("--policy", action="append", default=[], choices=POLICIES,
                        help="a flush policy (repeatable; default: all that the kernel has)")
    parser.add_argument("--backend", action="append", default=[], choices=BACKENDS,
                        help=f"a VFIO backend, or emulated: without VFIO (repeatable; default: "
                        f"{' and '.join(DEFAULT_BACKENDS)})")
    parser.add_argument("--kernel", action="append", default=[], choices=("stock", "patched"),
                        help="a guest kernel (repeatable; default: stock)")
    parser.add_argument("--workload", action="append", default=[], metavar="GLOB",
                        help="only workloads whose name matches (repeatable; --list names them)")
    parser.add_argument("--smp", type=int, default=1, metavar="N", help="CPUs of the guest (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=1, metavar="N",
                        help="boot each cell N times; the table shows medians and the spread")
    parser.add_argument("--out", type=Path, metavar="FOLDER",
                        help="where the result goes (default: time-stamped, below build/measure)")
    parser.add_argument("--report", type=Path, metavar="RESULT.JSON",
                        help="print the table of an earlier run and stop")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--json", action="store_true", help="print result.json instead of the table")
    parser.add_argument("--list", action="store_true", help="list the workloads and stop")
    common.add_common_options(parser)
    options = parser.parse_args(arguments, CommandLine())
    if not 1 <= options.repeat <= 1000:
        raise UserError(ExitCode.USAGE, f"--repeat {options.repeat}: 1 to 1000.")
    if not 1 <= options.smp <= 64:
        raise UserError(ExitCode.USAGE, f"--smp {options.smp}: 1 to 64.")
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.list:
        for workload in workloads(options.smp):
            print(f"{workload.name:24} {workload.command}")
        return ExitCode.PASS
    if options.report:
        print(results.table_of(results.load(options.report), options.markdown))
        return ExitCode.PASS
    session = Session(options)
    session.prepare()
    try:
        session.run()
    finally:
        # What was measured before an interruption counts.
        _tell(session, options)
    if session.failures:
        return ExitCode.GUEST_FAILED
    return ExitCode.PASS if session.result["runs"] else ExitCode.ENVIRONMENT


def _tell(session: Session, options: CommandLine) -> None:
    if options.json:
        print(json.dumps(session.result))
    elif session.result["runs"]:
        print(results.table_of(session.result, options.markdown))
    print(f"result: {session.out / 'result.json'}", file=sys.stderr)
    for cell in session.result["skipped"]:
        print(f"skipped: {cell['viommu']} {cell['policy']} {cell['backend']} {cell['kernel']}: {cell['why']}",
              file=sys.stderr)
    for failure in session.failures:
        print(f"failed: {failure}", file=sys.stderr)


if __name__ == "__main__":
    common.run(lambda: main(sys.argv[1:]), "measure")
