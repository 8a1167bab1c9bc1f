# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the plugin, and everything else that CMakeLists.txt knows, against the built QEMU."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from umbra import cache, progress
from umbra.building import packages, qemu
from umbra.building.environment import jobs, plain_environment, program
from umbra.building.qemu import QemuOptions, QemuProduct
from umbra.errors import ExitCode, UserError
from umbra.project import TREE

BUILD = TREE / "build" / "release"
_COMPILERS = {"C": "gcc", "CXX": "g++"}


@dataclasses.dataclass(frozen=True)
class PluginOptions:
    """`build`: the build folder. `werror`: warnings are errors, with compilers that the tree was mended for
    (cmake/warnings.cmake). `sanitize`: sanitizers on; without QEMU's parts."""
    build: Path = BUILD
    werror: bool = False
    sanitize: bool = False
    offline: bool = False
    update: bool = False


def find(build_folder: Path = BUILD) -> Path | None:
    """The plugin in a build folder, or None if it is not built."""
    plugin = build_folder / "umbra.so"
    return plugin if plugin.exists() else None


def find_stat(build_folder: Path = BUILD) -> Path | None:
    """umbra-stat in a build folder, or None if it is not built."""
    program = build_folder / "umbra-stat"
    return program if program.exists() else None


def build(options: PluginOptions, emulator: QemuProduct | None, targets: Sequence[str] = ("all",)) -> None:
    """Configures and builds. Without `emulator`, what includes QEMU's headers is left out."""
    packages.ensure(packages.PLUGIN, options.offline)
    lock = cache.key_of(build=options.build)
    with cache.lock(f"build-{lock}") as descriptor:
        log = cache.log_file(f"build-{options.build.name}")
        definitions = {
            "CMAKE_BUILD_TYPE": "RelWithDebInfo",
            "UMBRA_QEMU_SRC": emulator.src if emulator else "",
            "UMBRA_QEMU_BUILD": emulator.build if emulator else "",
            "UMBRA_WERROR": "ON" if options.werror else "OFF",
            "UMBRA_SANITIZE": "ON" if options.sanitize else "OFF",
        }
        _drop_foreign_cache(options.build)
        # A launcher, not ccache's wrappers in PATH: those are other compilers to CMake, which come and go with ccache.
        launcher = program("ccache") or ""
        definitions |= _compilers() | {f"CMAKE_{name}_COMPILER_LAUNCHER": launcher for name in _COMPILERS}
        progress.run(f"Configuring {options.build.name}",
                     ["cmake", "-S", TREE, "-B", options.build, "-G", "Ninja",
                      *(f"-D{name}={value}" for name, value in definitions.items())],
                     log, env=plain_environment(), keep_open=[descriptor])
        progress.run(f"Building {options.build.name}",
                     ["cmake", "--build", options.build, f"-j{jobs()}", "--target", *targets],
                     log, env=plain_environment(), keep_open=[descriptor])


def _compilers() -> dict[str, str]:
    """CMake's variables for them. Whole paths: CMake keeps what it was told last, and a bare name is another compiler
    to it than the path that it found."""
    return {f"CMAKE_{name}_COMPILER": program(compiler) or compiler for name, compiler in _COMPILERS.items()}


def _drop_foreign_cache(folder: Path) -> None:
    """CMake refuses a build folder that was made for another place or generator; and told to use another compiler, it
    configures anew and forgets all else that it was told. Such a folder starts afresh."""
    memory = folder / "CMakeCache.txt"
    if not memory.exists():
        return
    # Lines are NAME:TYPE=VALUE.
    known = {line.partition(":")[0]: line.partition("=")[2] for line in memory.read_text(errors="replace").splitlines()}
    wanted = {"CMAKE_HOME_DIRECTORY": str(TREE), "CMAKE_GENERATOR": "Ninja", "CMAKE_CACHEFILE_DIR": str(folder)}
    wanted |= _compilers()
    if any(known.get(name) != value for name, value in wanted.items()):
        cache.remove(folder)


def ensure(options: PluginOptions = PluginOptions(), targets: Sequence[str] = ("umbra",)) -> Path:
    """The plugin (and whatever else `targets` name), brought up to date with the tree."""
    emulator = qemu.ensure(QemuOptions.from_environment(offline=options.offline, update=options.update))
    build(options, emulator, targets)
    plugin = find(options.build)
    if plugin is None:
        raise UserError(ExitCode.ENVIRONMENT, f"The build in {options.build} made no umbra.so.")
    return plugin
