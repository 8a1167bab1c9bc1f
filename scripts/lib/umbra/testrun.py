# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds what the chosen tests need, and runs them with CTest.

Unit tests run twice, as compiled for use and under the address and undefined-behaviour sanitizers. Both build folders
are joined by a CTestTestfile.cmake of their own, so that one CTest run and one summary cover everything.
"""

import subprocess
from pathlib import Path

from umbra import busybox, cache, command, packages, plugin, products, qemu
from umbra.build_environment import environment, jobs
from umbra.errors import ExitCode, UserError
from umbra.plugin import PluginOptions
from umbra.products import TREE, BuildOptions
from umbra.qemu import QemuOptions

LABELS = ("unit", "fuzz", "qtest", "guest")
_WITHOUT_QEMU = {"unit", "fuzz"}
_BUILD = TREE / "build" / "test"
_SANITIZED = TREE / "build" / "test-sanitize"
_JOINED = TREE / "build" / "test-all"


def _build(labels: list[str], options: BuildOptions) -> list[Path]:
    """Builds for the labels; returns the folders with tests in them."""
    packages.ensure(packages.TESTS, options.offline)
    emulator = None
    needs_qemu = not set(labels) <= _WITHOUT_QEMU
    if not needs_qemu:
        # Of no use to these tests; but where it is there, the build folder keeps its configuration.
        emulator = qemu.find(QemuOptions.from_environment())
    else:
        emulator = products.ensure_qemu(options)
    folders = [_BUILD]
    plugin.build(PluginOptions(_BUILD, werror=True, offline=options.offline), emulator,
                 ("tests/unit/all",) if labels == ["unit"] else ("all",))
    if "unit" in labels:
        if not options.offline:
            busybox.fetch_others()
        plugin.build(PluginOptions(_SANITIZED, werror=True, sanitize=True, offline=options.offline), None)
        folders.append(_SANITIZED)
    if emulator and needs_qemu and products.plugin_sources_present() and plugin.find(_BUILD) is None:
        raise UserError(ExitCode.ENVIRONMENT, f"The build in {_BUILD} made no umbra.so.")
    if "guest" in labels:
        products.ensure_kernel(options)
        if products.patches_present():
            products.ensure_kernel(options, patched=True)
        products.ensure_images(options)
        if products.plugin_sources_present():
            products.ensure_plugin(options)
    return folders


def _test_environment() -> dict[str, str]:
    """Where everything lies, for the tests: the variables of scripts/env, all with the prefix UMBRA_."""
    places = products.built() | {"UMBRA_PLUGIN": plugin.find(_BUILD)}
    named = {name if name.startswith("UMBRA_") else f"UMBRA_{name}": str(path) for name, path in places.items() if path}
    # Sanitizer reports end a test; leaks are errors as well.
    return environment(UMBRA_CACHE=str(cache.root()), ASAN_OPTIONS="detect_leaks=1:abort_on_error=0",
                       UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1", **named)


def _join(folders: list[Path]) -> None:
    quoted = " ".join(f'"{folder}"' for folder in folders)
    cache.write_atomically(_JOINED / "CTestTestfile.cmake", f"subdirs({quoted})\n")


def main() -> int:
    parser = command.Parser(
        prog="test", description="Builds whatever is missing and runs the tests. Ends with CTest's summary.",
        epilog="unit:  the engine and the scripts, without QEMU\n"
               "fuzz:  libFuzzer targets, a minute each\n"
               "qtest: the device in a real QEMU, without a guest\n"
               "guest: Linux in VMs\n"
               "Exit codes: 0 all passed, 1 a test failed, 2 usage, 4 something could not be built.\n"
               "Example: scripts/test unit --filter InvalidationQueue")
    parser.add_argument("labels", nargs="*", metavar="LABEL", help="unit, fuzz, qtest, guest (default: all of them)")
    parser.add_argument("--filter", metavar="REGEX", help="only tests whose name matches")
    # One more than cores: guests wait now and then, for a slot's button or a time limit.
    parser.add_argument("--jobs", metavar="N", type=int, default=jobs() + 1,
                        help="how many tests run at once (default: one more than cores, %(default)s here)")
    command.add_common_options(parser)
    arguments = parser.parse_args()
    for label in arguments.labels:
        if label not in LABELS:
            parser.error(f"there is no label {label}; the labels are {', '.join(LABELS)}")
    if arguments.jobs < 1:
        parser.error("--jobs must be 1 or more")
    labels = [label for label in LABELS if label in arguments.labels] or list(LABELS)
    folders = _build(labels, BuildOptions(offline=arguments.offline, update=arguments.update))
    _join(folders)
    ctest = ["ctest", "--test-dir", _JOINED, "--output-on-failure", "--no-tests=error", f"-j{arguments.jobs}",
             "-L", f"^({'|'.join(labels)})$"]
    if arguments.filter:
        ctest += ["-R", arguments.filter]
    status = subprocess.run(ctest, env=_test_environment(), stdin=subprocess.DEVNULL, check=False).returncode
    return ExitCode.PASS if status == 0 else ExitCode.GUEST_FAILED


if __name__ == "__main__":
    command.run(main, "test")
