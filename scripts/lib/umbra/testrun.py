# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds what the chosen tests need, and runs them with CTest.

Unit tests run twice, as compiled for use and under the address and undefined-behaviour sanitizers. Both build folders
are joined by a CTestTestfile.cmake of their own, so that one CTest run and one summary cover everything.

The long run is the default run, and after it what takes hours.
"""

import dataclasses
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from umbra import cache, progress
from umbra.building import busybox, fresh_debian, packages, plugin, products, qemu
from umbra.building.environment import environment
from umbra.building.plugin import PluginOptions
from umbra.building.products import BuildOptions
from umbra.building.qemu import QemuOptions
from umbra.errors import ExitCode, UserError
from umbra.project import TREE

LABELS = ("unit", "fuzz", "qtest", "guest")
_WITHOUT_QEMU = {"unit", "fuzz"}
_BUILD = TREE / "build" / "test"
_SANITIZED = TREE / "build" / "test-sanitize"
_JOINED = TREE / "build" / "test-all"
_UNPATCHED = TREE / "build" / "test-unpatched"

# Steps that each kind of run of the shadow's random model takes in the long run. There are ten kinds.
_MODEL_STEPS = 1_000_000


@dataclasses.dataclass(frozen=True)
class CTestRun:
    """Tests of a build folder: those with one of `labels`, and a name that matches `pattern`."""
    folder: Path
    labels: tuple[str, ...]
    pattern: str | None = None
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def describe(self) -> str:
        return " ".join([f"tests of {', '.join(self.labels)}", *([f"named {self.pattern}"] if self.pattern else []),
                         *(f"with {name}={value}" for name, value in self.variables.items())])

    def passes(self, jobs_at_once: int) -> bool:
        words = ["ctest", "--test-dir", str(self.folder), "--output-on-failure", "--no-tests=error",
                 f"-j{jobs_at_once}", "-L", f"^({'|'.join(self.labels)})$",
                 *(["-R", self.pattern] if self.pattern else [])]
        return subprocess.run(words, env=_test_environment() | dict(self.variables), stdin=subprocess.DEVNULL,
                              check=False).returncode == 0


@dataclasses.dataclass(frozen=True)
class UnpatchedQemuRun:
    """The device's tests on a QEMU without qemu-configs/patches: the plugin must load there as well."""

    def describe(self) -> str:
        return "tests of qtest on an unpatched QEMU"

    def passes(self, jobs_at_once: int) -> bool:
        return _passes_or_says_why(lambda: self._tests().passes(jobs_at_once))

    @staticmethod
    def _tests() -> CTestRun:
        emulator = qemu.ensure(QemuOptions.from_environment(unpatched=True))
        plugin.build(PluginOptions(_UNPATCHED, werror=True), emulator)
        places = {"UMBRA_QEMU_SRC": emulator.src, "UMBRA_QEMU_BUILD": emulator.build, "UMBRA_QEMU_BIN": emulator.binary,
                  "UMBRA_PLUGIN": _UNPATCHED / "umbra.so"}
        return CTestRun(_UNPATCHED, ("qtest",), variables={name: str(path) for name, path in places.items()})


@dataclasses.dataclass(frozen=True)
class FreshDebianRun:
    """Commands of the project, one after the other in a fresh Debian."""
    commands: tuple[tuple[str, ...], ...]

    def describe(self) -> str:
        return f"in a fresh {fresh_debian.RELEASE}: {', '.join(' '.join(command) for command in self.commands)}"

    def passes(self, _jobs_at_once: int) -> bool:
        return _passes_or_says_why(lambda: not fresh_debian.run(self.commands))


def _passes_or_says_why(run: Callable[[], bool]) -> bool:
    """A run that cannot take place has failed; what other runs found is told all the same."""
    try:
        return run()
    except UserError as error:
        progress.say(str(error))
        return False


Run = CTestRun | UnpatchedQemuRun | FreshDebianRun


def plan(labels: Sequence[str], pattern: str | None, long: bool) -> list[Run]:
    """What is run, in order. `pattern`: only tests whose name matches. `long`: the long run."""
    runs: list[Run] = [CTestRun(_JOINED, tuple(labels), pattern)]
    if long:
        runs += [CTestRun(_BUILD, ("unit",), "^RandomModel", {"UMBRA_MODEL_STEPS": str(_MODEL_STEPS)}),
                 UnpatchedQemuRun(),
                 FreshDebianRun((("./scripts/measure", "--quick"), ("./scripts/test",)))]
    return runs


def prepare(labels: Sequence[str], options: BuildOptions) -> None:
    """Builds what tests of these labels need, and joins the build folders for one CTest run."""
    _join(_build(labels, options))


def _build(labels: Sequence[str], options: BuildOptions) -> list[Path]:
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
                 ("tests/unit/all",) if set(labels) == {"unit"} else ("all",))
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
