# SPDX-License-Identifier: GPL-2.0-or-later
"""test: builds whatever is missing and runs the tests."""

import argparse
from collections.abc import Sequence

from umbra import progress, testrun
from umbra.building import fresh_debian
from umbra.building.environment import jobs
from umbra.building.products import BuildOptions
from umbra.commands import common
from umbra.errors import ExitCode
from umbra.testrun import LABELS


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; `labels` are those that were named, or all of them, in LABELS' order."""
    parser = common.Parser(
        prog="test", description="Builds whatever is missing and runs the tests. Ends with CTest's summary.",
        epilog="unit:  the engine and the scripts, without QEMU\n"
               "fuzz:  libFuzzer targets, a minute each\n"
               "qtest: the device in a real QEMU, without a guest\n"
               "guest: Linux in VMs\n"
               "The long run is the default run, then ten million steps of the shadow's random model, then qtest on\n"
               "a QEMU without qemu-configs/patches, then scripts/measure --quick and scripts/test in a fresh\n"
               f"Debian 13. That needs root or user namespaces, {fresh_debian.GIGABYTES} GB in the cache, and some\n"
               "hours.\n"
               "Exit codes: 0 all passed, 1 a test failed, 2 usage, 4 something could not be built.\n"
               "Example: scripts/test unit --filter Iotlb\n"
               "Example: scripts/test --long")
    parser.add_argument("labels", nargs="*", metavar="LABEL", help="unit, fuzz, qtest, guest (default: all of them)")
    parser.add_argument("--filter", metavar="REGEX", help="only tests whose name matches")
    parser.add_argument("--long", action="store_true", help="the long run (default: off)")
    # One more than cores: guests wait now and then, for a slot's button or a time limit.
    parser.add_argument("--jobs", metavar="N", type=int, default=jobs() + 1,
                        help="how many tests run at once (default: one more than cores, %(default)s here)")
    common.add_common_options(parser)
    arguments = parser.parse_args(words)
    for label in arguments.labels:
        if label not in LABELS:
            parser.error(f"there is no label {label}; the labels are {', '.join(LABELS)}")
    if arguments.jobs < 1:
        parser.error("--jobs must be 1 or more")
    excluded = {"a label": arguments.labels, "--filter": arguments.filter, "--offline": arguments.offline}
    for name, given in excluded.items():
        if arguments.long and given:
            parser.error(f"--long does not go with {name}")
    arguments.labels = [label for label in LABELS if label in arguments.labels] or list(LABELS)
    return arguments


def main() -> int:
    arguments = parse()
    if arguments.long:
        fresh_debian.check()
    testrun.prepare(arguments.labels, BuildOptions(offline=arguments.offline, update=arguments.update))
    runs = testrun.plan(arguments.labels, arguments.filter, arguments.long)
    failed = [run.describe() for run in runs if not run.passes(arguments.jobs)]
    if arguments.long:
        progress.say("".join(f"Failed: {description}\n" for description in failed) or "The long run passed.")
    return ExitCode.GUEST_FAILED if failed else ExitCode.PASS


if __name__ == "__main__":
    common.run(main, "test")
